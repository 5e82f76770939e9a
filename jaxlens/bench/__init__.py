"""Benchmarks: the whole sweep and its stages, beside what the device can do."""
