"""Stages 2 to 4: interactions, features as of a time, windows, splits, weights."""
