"""Stage 10: the files of a data set."""
