"""Kernels that stand in place of `interior.read` on one kind of accelerator."""
