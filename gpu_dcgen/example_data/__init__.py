"""Tables to try the package with."""
