"""Reading and writing files: contained, bounded, whole or not at all; errors of the system told."""
