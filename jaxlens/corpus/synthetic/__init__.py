"""Corpora that are generated: repeated tokens, templates, prompts, shuffled documents."""
