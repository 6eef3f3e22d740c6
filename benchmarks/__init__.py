"""Measurements of speed, memory and search quality; nothing here asserts on timing."""
