"""Packs of multilayer perceptrons; needs torch and numpy alone."""
