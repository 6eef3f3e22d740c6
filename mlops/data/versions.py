"""Versions of what a study takes for granted of its table; on record with each study."""

from __future__ import annotations

READING_VERSION = 2
"""How cells are read: 1 by pandas' guess from a file's rows, 2 by the model's columns."""

SPLIT_VERSION = 2
"""Which rows are in which part: 1 drawn by the study's seed, 2 by what a row holds."""

RELEASE = "0.2"
"""The release that has these versions; 0.1 had both first ones and did not record them."""
