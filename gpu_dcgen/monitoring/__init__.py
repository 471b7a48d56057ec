"""What a build tells whoever watches it."""
