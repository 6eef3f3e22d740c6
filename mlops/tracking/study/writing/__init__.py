"""Child runs on their way to MLflow: what is told of them, and how it is sent."""
