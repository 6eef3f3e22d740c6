"""A study's record: its run, the runs of its trials, and what of that MLflow does not have yet."""
