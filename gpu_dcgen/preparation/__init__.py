"""Stages 2 to 4: interactions, item snapshots, windows, splits, weights."""
