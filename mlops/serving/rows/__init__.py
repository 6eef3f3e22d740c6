"""The rows of a request: their columns, their cells, and how these are read."""
