"""Store data: locations, staging folders, checkpoints, checksums and remote storage."""
