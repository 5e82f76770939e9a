"""Reading and writing files: contained, bounded, whole or not at all, with errors for users."""
