"""Finished runs over parts of a corpus, read as one run: the record of them, and their sums."""
