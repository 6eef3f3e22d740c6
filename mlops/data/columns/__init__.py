"""What a column is, and how it becomes numbers a network can learn from."""
