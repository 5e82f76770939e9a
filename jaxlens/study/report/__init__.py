"""The report of a run: one page with every figure of its study, readable without anything else."""
