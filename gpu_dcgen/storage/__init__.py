"""Where bytes lie: locations, staging, checkpoints, remote storage."""
