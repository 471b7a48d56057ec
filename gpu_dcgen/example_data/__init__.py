"""Tables to try the package on."""
