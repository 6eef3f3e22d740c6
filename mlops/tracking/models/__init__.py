"""A study's model: its files, its card, and its place in the registry."""
