"""Columns of text in which every cell is a plain number or a gap: read at once, not one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlops.data.cells.spelling import EXACT_DOUBLE, LONGEST_NUMBER, is_gap

_GAPS = ("", "NA", "NaN", "nan", "?", "null", "NULL", "None", "N/A")


class PlainNumbers:
    """Collects the numbers of a column that comes piece by piece.

    Whether digits are codes, written with zeros before them, is for the whole column to say: where
    some number is a fraction they are not.
    """

    def __init__(self) -> None:
        # Memory is taken once: a list of pieces, joined in the end, would take it twice.
        self._numbers = np.empty(0)
        self._n = 0
        self._has_codes = self._has_fractions = False

    def add(self, texts: Any, n_expected: int = 0) -> bool:
        """Adds texts, unless one is neither plain number nor gap.

        Args:
            texts: [N] pyarrow array.
            n_expected: The likely number of all texts, those before and after these too.

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
        end = self._n + len(numbers)
        if end > len(self._numbers):
            kept = self._numbers[: self._n]
            self._numbers = np.empty(max(min(n_expected, 64 * end), end + end // 8))
            self._numbers[: self._n] = kept
        self._numbers[self._n : end] = numbers
        self._n = end
        return True

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added so far."""
        return not self._n

    @property
    def are_codes(self) -> bool:
        """Whether the numbers are codes rather."""
        return self._has_codes and not self._has_fractions

    def all(self) -> np.ndarray:
        """Returns all numbers, NaN for a gap: [N] float64."""
        return self._numbers[: self._n]


def cast_plain(texts: Any) -> np.ndarray | None:
    """Reads plain numbers and gaps; None where there is anything else.

    Args:
        texts: A pyarrow array of text, or chunked array: [N].

    Returns:
        NaN for a gap: [N] float64, which may be read-only.
    """
    if _longest(texts) > LONGEST_NUMBER:
        return None
    for prepare in (lambda: texts, lambda: _without_gaps(texts)):
        try:
            cast = pc.cast(prepare(), pa.float64())
            numbers: np.ndarray = cast.to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            continue
        if np.isinf(numbers).any() or not _are_gaps(texts, numbers):
            return None
        return numbers
    return None


def _longest(texts: Any) -> int:
    """Returns the bytes of the longest text."""
    if isinstance(texts, pa.ChunkedArray):
        return max(map(_longest, texts.chunks), default=0)
    if not len(texts):
        return 0
    # Differences of the offsets: a kernel of Arrow's would make an array first.
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    offsets = np.frombuffer(texts.buffers()[1], width)[texts.offset :][: len(texts) + 1]
    return int(np.diff(offsets).max())


def _are_gaps(texts: Any, numbers: np.ndarray) -> bool:
    """Tells whether all that is no number is a gap: Arrow takes `nan(1)` for one too."""
    rows = np.flatnonzero(np.isnan(numbers))
    if not len(rows):
        return True
    words = pc.unique(pc.take(texts, pa.array(rows))).to_pylist()
    return all(word is None or is_gap(word) for word in words)


def _without_gaps(texts: Any) -> Any:
    return pc.if_else(pc.is_in(texts, pa.array(_GAPS, texts.type)), None, texts)
