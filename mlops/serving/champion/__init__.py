"""The model that answers: it follows the registry, and computes without torch."""
