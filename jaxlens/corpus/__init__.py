"""Text to token file to plan: what the sweep reads, and in which order."""
