"""Two prompts, models or decoders beside each other: numbers, terminal, page, figure."""
