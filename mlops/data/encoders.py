"""How one column of a table becomes numbers a network can learn from.

    numeric column      median for a gap, then (value - mean) / scale        1 output
    categorical column  one output a level, [missing], [other]               1 or more outputs

The outputs `missing` and `other` exist only where the training rows used them: the weights of an
output that was always zero in training are still their random initial values. So what training
never saw is coded by zeros in every output of the column, which differs from all levels and adds no
noise. For that reason a gap shares the code of an unknown value where the training rows had no gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from mlops.data.columns import MISSING_TEXTS, Kind, all_missing, as_levels, as_numbers
from mlops.errors import TableError

MAX_LEVELS = 100
LIMIT = 1e6  # |z| of one of N training rows is at most sqrt(N - 1), so no training row reaches it


@dataclass(frozen=True)
class NumericColumn:
    """A column of numbers: gaps become the median, then values are standardized.

    `mean` and `scale` are those of the training rows with their gaps filled. A constant column has
    scale 1. Standardized values are held to ±`LIMIT`, so an absurd value cannot turn a prediction
    into NaN.
    """

    name: str
    median: float
    mean: float
    scale: float
    kind: ClassVar[Kind] = "numeric"
    width: ClassVar[int] = 1

    @classmethod
    def fit(cls, name: str, values: Any) -> NumericColumn:
        """Learns the statistics of `values` ([N] extension array).

        Raises:
            TableError: A cell is no finite number, or every cell is missing.
        """
        numbers = as_numbers(name, values)
        missing = np.isnan(numbers)
        if missing.all():
            raise TableError(all_missing(name))
        # Dividing by a power of two is exact, and keeps sums and squares of huge values finite.
        _, exponent = np.frexp(np.nanmax(np.abs(numbers)))
        numbers = np.ldexp(numbers, -exponent)
        median = np.median(numbers[~missing])
        numbers[missing] = median
        constant = numbers.min() == numbers.max()
        mean = median if constant else numbers.mean()
        scale = 1.0 if constant else float(np.ldexp(numbers.std(), exponent))
        median, mean = (float(np.ldexp(number, exponent)) for number in (median, mean))
        return cls(name, median, mean, scale if scale > 0.0 else 1.0)


class Standardizer:
    """Encodes all numeric columns of a table at once.

    Args:
        columns: The k fitted columns.
    """

    def __init__(self, columns: Sequence[NumericColumn]) -> None:
        self._medians = np.array([column.median for column in columns], dtype=np.float64)
        self._means = np.array([column.mean for column in columns], dtype=np.float64)
        self._scales = np.array([column.scale for column in columns], dtype=np.float64)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Standardizes `numbers` ([N, k] float64, NaN for a gap) in place and returns them."""
        np.copyto(numbers, self._medians, where=np.isnan(numbers))
        with np.errstate(over="ignore"):
            numbers -= self._means
            numbers /= self._scales
        return np.clip(numbers, -LIMIT, LIMIT, out=numbers)


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of categories: one output a level, and `missing` and `other` where fitted.

    A text that a CSV reader takes for a gap (`MISSING_TEXTS`) counts as one unless it is a level,
    so a served model understands a row like the reader of its training table did.
    """

    name: str
    levels: tuple[str, ...]
    missing: bool
    other: bool
    kind: ClassVar[Kind] = "categorical"

    @classmethod
    def fit(cls, name: str, values: Any, max_levels: int = MAX_LEVELS) -> CategoricalColumn:
        """Learns the `max_levels` most frequent levels of `values` ([N] extension array).

        Raises:
            TableError: Every cell is missing.
        """
        codes, texts = as_levels(name, values)
        counts: dict[str, int] = {}
        rows = np.bincount(codes[codes >= 0], minlength=len(texts))
        for code in np.flatnonzero(rows):
            counts[texts[code]] = counts.get(texts[code], 0) + int(rows[code])
        if not counts:
            raise TableError(all_missing(name))
        frequent = sorted(counts, key=lambda text: (-counts[text], text))[:max_levels]
        return cls(
            name, tuple(sorted(frequent)), bool((codes < 0).any()), len(frequent) < len(counts)
        )

    @property
    def width(self) -> int:
        """Number of outputs."""
        return len(self.levels) + self.missing + self.other

    def write(self, values: Any, out: np.ndarray) -> None:
        """Encodes `values` ([N] extension array) into `out`: [N, width] float32, zeros."""
        codes, texts = as_levels(self.name, values)
        outputs = [self._outputs.get(text, self._other_output) for text in texts]
        # The last entry is where code -1, a gap, points.
        hot = np.array([*outputs, self._missing_output], dtype=np.int64)[codes]
        rows = np.flatnonzero(hot >= 0)
        out[rows, hot[rows]] = 1.0

    @cached_property
    def _outputs(self) -> dict[str, int]:
        gaps = dict.fromkeys(MISSING_TEXTS, self._missing_output)
        return gaps | {level: output for output, level in enumerate(self.levels)}

    def outputs(self) -> tuple[dict[str | None, int], int]:
        """Returns the output of every known text and of None, a gap; and that of other texts.

        An output is -1 where the column has none for it.
        """
        known: dict[str | None, int] = {None: self._missing_output}
        return known | self._outputs, self._other_output

    @property
    def _missing_output(self) -> int:
        return len(self.levels) if self.missing else self._other_output

    @property
    def _other_output(self) -> int:
        return len(self.levels) + self.missing if self.other else -1


Column = NumericColumn | CategoricalColumn
