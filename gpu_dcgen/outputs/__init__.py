"""Stage 10: the files of a dataset."""
