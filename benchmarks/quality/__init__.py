"""How good are the models? Real tables, several splits, and peers on the same rows and cores."""
