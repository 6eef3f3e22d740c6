"""What a device does many times over, and what is particular to a GPU."""
