"""Before a build: `doctor` and `plan`."""
