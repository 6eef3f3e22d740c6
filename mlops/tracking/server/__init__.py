"""A tracking server for a team, and the programs that it consists of."""
