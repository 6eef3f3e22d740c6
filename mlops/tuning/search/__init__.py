"""Which configurations are tried, and in which packs."""
