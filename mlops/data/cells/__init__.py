"""What a cell holds: one text, one number, date or level, whoever asks."""
