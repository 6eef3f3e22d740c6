"""The registered champion behind HTTP, and over tables."""
