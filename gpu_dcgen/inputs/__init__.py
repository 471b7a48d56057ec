"""Stage 1: find (`sources`), check (`footers`, `rejects`) and encode (`shop`) the tables."""
