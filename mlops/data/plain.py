"""Columns of text in which every cell is a plain number or a gap: read at once, not one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlops.data.spelling import EXACT_DOUBLE, LONGEST_NUMBER, is_gap

_GAPS = ("", "NA", "NaN", "nan", "?", "null", "NULL", "None", "N/A")


class PlainNumbers:
    """Collects the numbers of a column that comes piece by piece.

    Whether digits are codes, written with zeros before them, is for the whole column to say: where
    some number is a fraction they are not.
    """

    def __init__(self) -> None:
        self._pieces: list[np.ndarray] = []
        self._has_codes = self._has_fractions = False

    def add(self, texts: Any) -> bool:
        """Adds texts ([N] pyarrow array), unless one is neither plain number nor gap.

        Returns:
            Whether they were added.
        """
        numbers = cast_plain(texts)
        if numbers is None:
            return False
        # Not of NaN, if there is any other.
        least, most = np.fmin.reduce(numbers, initial=0.0), np.fmax.reduce(numbers, initial=0.0)
        if max(most, -least) >= EXACT_DOUBLE:
            return False
        if not self._has_fractions:
            known = numbers[~np.isnan(numbers)]
            self._has_fractions = bool((known != np.floor(known)).any())
        if not (self._has_fractions or self._has_codes):
            # Few numbers start so, and a pattern takes long.
            zeros = pc.filter(texts, pc.starts_with(texts, "0"))
            self._has_codes = bool(pc.any(pc.match_substring_regex(zeros, "^0[0-9]")).as_py())
        self._pieces.append(numbers)
        return True

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added so far."""
        return not self._pieces

    @property
    def are_codes(self) -> bool:
        """Whether the numbers are codes rather."""
        return self._has_codes and not self._has_fractions

    def all(self) -> np.ndarray:
        """Returns all numbers, NaN for a gap: [N] float64."""
        return np.concatenate(self._pieces) if self._pieces else np.empty(0)


def cast_plain(texts: Any) -> np.ndarray | None:
    """Reads plain numbers and gaps; None where there is anything else.

    Args:
        texts: A pyarrow array of text, or chunked array: [N].

    Returns:
        NaN for a gap: [N] float64.
    """
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    if longest > LONGEST_NUMBER:
        return None
    for prepare in (lambda: texts, lambda: _without_gaps(texts)):
        try:
            cast = pc.cast(prepare(), pa.float64())
            numbers: np.ndarray = cast.to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            continue
        if np.isinf(numbers).any() or not _are_gaps(texts, numbers):
            return None
        return numbers if numbers.flags.writeable else numbers.copy()
    return None


def _are_gaps(texts: Any, numbers: np.ndarray) -> bool:
    """Tells whether all that is no number is a gap: Arrow takes `nan(1)` for one too."""
    rows = np.flatnonzero(np.isnan(numbers))
    if not len(rows):
        return True
    words = pc.unique(pc.take(texts, pa.array(rows))).to_pylist()
    return all(word is None or is_gap(word) for word in words)


def _without_gaps(texts: Any) -> Any:
    return pc.if_else(pc.is_in(texts, pa.array(_GAPS, texts.type)), None, texts)
