"""The record in MLflow: runs, models, registry."""
