"""Ablation: what the copy of a token loses where its source is replaced, by arm and layer."""
