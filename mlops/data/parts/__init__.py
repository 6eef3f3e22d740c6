"""Which rows a study learns from, and which it is judged by."""
