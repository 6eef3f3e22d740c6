"""MLflow as a store: opened, asked, written to, and held by one process at a time."""
