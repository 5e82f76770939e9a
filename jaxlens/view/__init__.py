"""Figures and pages: numbers in, pictures out. Nothing here computes a result."""
