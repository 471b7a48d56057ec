"""Write the files of a dataset."""
