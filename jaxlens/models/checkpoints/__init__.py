"""Checkpoints in every container: found, checked, read into stacked float32 parameters."""
