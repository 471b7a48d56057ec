"""Read from and publish to storage that fsspec supports: object stores, web servers."""
