"""What is taken from inside MLflow, read in 3.17.2; where it is another, its public client does."""
