"""Tables of prompts: as data frames, in notebooks, as figures."""
