"""A prompt through the lens: numbers, terminal, page, notebook, data frame, figure."""
