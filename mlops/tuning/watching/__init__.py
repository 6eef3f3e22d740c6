"""What is known of a study while it runs, shown, and ended by."""
