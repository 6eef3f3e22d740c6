"""What is taken from inside MLflow, read in 3.17: where it is another one, its public client does."""
