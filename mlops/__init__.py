"""Tuning, tracking and serving of multilayer perceptrons on tables."""
