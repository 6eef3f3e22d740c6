"""Versions of what a study and a model take for granted of a table; on record with each study."""

from __future__ import annotations

READING_VERSION = 2
"""How cells are read: 1 by pandas' guess from a file's rows, 2 by the model's columns."""

SPLIT_VERSION = 2
"""Which rows are in which part: 1 drawn by the study's seed, 2 by what a row holds."""
