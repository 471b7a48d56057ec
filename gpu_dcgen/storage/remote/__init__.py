"""Builds from and into storage that fsspec reaches: object stores, web servers."""
