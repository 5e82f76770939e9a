"""Programs compiled for accelerators that are not here: what they need, move and compute."""
