"""Rows and totals of a run for other tools: Parquet, CSV, one HDF5 file."""
