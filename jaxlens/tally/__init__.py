"""Tallies: exact totals over rows that merge in any order and any grouping."""
