"""The GPU worker: restores one video at a time on a machine with zero to four GPUs."""
