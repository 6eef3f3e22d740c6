"""One job a file: read settings, call `mlops`, print the result."""
