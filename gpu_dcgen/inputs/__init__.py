"""Stage 1: Parquet tables -> Shop."""
