"""Runs of several checkpoints of one model: what is estimated, over training steps."""
