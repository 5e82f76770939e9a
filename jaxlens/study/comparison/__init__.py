"""Two runs over the same tokens: what differs, with intervals."""
