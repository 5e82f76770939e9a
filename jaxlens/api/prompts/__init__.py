"""Any number of prompts and answers through the lens, as one table."""
