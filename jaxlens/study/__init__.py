"""Offline statistics: tallies and event tables in, estimates with intervals out.

NumPy and SciPy only, no jax and no files: every function maps arrays to arrays or to a small
frozen dataclass. What has no estimate is NaN and says why, never zero.
"""
