"""Whole tables scored with a registered model."""
