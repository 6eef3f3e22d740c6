"""The same study as users write it today, to measure ours against."""
