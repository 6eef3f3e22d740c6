"""How one column of a table becomes numbers a network can learn from.

    numeric column      median for a gap, then (value - mean) / scale        1 output
    categorical column  one output a level, [missing], [other]               1 or more outputs

The outputs `missing` and `other` exist only where the training rows used them: the weights of an
output that was always zero in training are still their random initial values. So what training
never saw is coded by zeros in every output of the column, which differs from all levels and adds no
noise. For that reason a gap shares the code of an unknown value where the training rows had no gap.

A column also knows how its cells are read, whoever sends them: it alone decides, never the rows
beside or the kind of file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from mlops.data.cells.levels import GAP, UNKNOWN, Levels
from mlops.data.cells.numbers import PLAIN, NumberFormat
from mlops.data.columns.kinds import Kind, all_missing, number_of, numbers_of, texts_of
from mlops.data.notes import Tally
from mlops.errors import TableError

MAX_LEVELS = 100
MOST_RARE = 10_000
LIMIT = 1e6  # |z| of one of N training rows is at most sqrt(N - 1), so no training row reaches it
# Cells farther from the middle than so many spreads are not of the column's scale: 1e300, or 999999
# for "no value". They are held to the farthest of the others, and have no part in mean and scale.
EXTREME = 1000.0


@dataclass(frozen=True)
class NumericColumn:
    """A column of numbers: gaps become the median, then values are standardized.

    `mean` and `scale` are those of the training rows with their gaps filled. A constant column has
    scale 1. Standardized values are held to ±`limit`, so an absurd value cannot turn a prediction
    into NaN.

    Attributes:
        low: The least number of the training rows, extreme ones left out.
        high: The greatest one.
        format: How texts write its numbers.
        single: Whether its numbers are float32; whatever is sent is rounded likewise.
        binary: Whether its numbers are 1 and 0; then `true` and `false` are these too.
    """

    name: str
    median: float
    mean: float
    scale: float
    limit: float = LIMIT
    low: float = -sys.float_info.max
    high: float = sys.float_info.max
    format: NumberFormat = PLAIN
    single: bool = False
    binary: bool = False
    kind: ClassVar[Kind] = "numeric"
    width: ClassVar[int] = 1

    @classmethod
    def fit(cls, name: str, values: Any, form: NumberFormat = PLAIN) -> NumericColumn:
        """Learns the statistics of a column that has been read.

        Args:
            name: The column's name.
            values: Its numbers (`mlops.data.columns.reading`): [N], NaN for a gap.
            form: How texts write them.

        Raises:
            TableError: Every cell is missing.
        """
        numbers = np.asarray(values)
        single = numbers.dtype in (np.float32, np.float16)
        numbers = numbers.astype(np.float64)
        missing = np.isnan(numbers)
        if missing.all():
            raise TableError(all_missing(name))
        known = numbers[~missing]
        binary = bool(np.isin(known, (0.0, 1.0)).all())
        usual = known[~is_extreme(known)]
        low, high = float(usual.min()), float(usual.max())
        # Dividing by a power of two is exact, and keeps sums and squares of huge values finite.
        _, exponent = np.frexp(np.abs(usual).max())
        median = np.median(np.ldexp(np.clip(known, low, high), -exponent))
        numbers = np.ldexp(np.clip(numbers, low, high), -exponent)
        numbers[missing] = median
        constant = numbers.min() == numbers.max()
        mean = median if constant else numbers.mean()
        scale = 1.0 if constant else float(np.ldexp(numbers.std(), exponent))
        median, mean = (float(np.ldexp(number, exponent)) for number in (median, mean))
        scale = scale if scale > 0.0 else 1.0
        limit = LIMIT
        if len(usual) < len(known):
            limit = max(1.0, abs(low - mean) / scale, abs(high - mean) / scale)
        return cls(name, median, mean, scale, limit, low, high, form, single, binary)

    def read(self, values: Any) -> tuple[np.ndarray, np.ndarray]:
        """Reads a raw column.

        Returns:
            The numbers, NaN for a gap and for what is no number: [N] float64; and the positions of
            the latter: [M] int64.

        Raises:
            TableError: Its cells are no single values.
        """
        return numbers_of(self.name, values, self.format, single=self.single, binary=self.binary)

    def read_cell(self, cell: Any) -> float | None:
        """Reads one cell: a number, NaN for a gap, None where it is neither."""
        number = number_of(cell, self.format, self.binary)
        if number is None or not self.single:
            return number
        with np.errstate(over="ignore"):
            number = float(np.float32(number))
        return None if np.isinf(number) else number

    def to_json(self) -> dict[str, Any]:
        """Returns the whole state as JSON values."""
        return {"kind": self.kind, **asdict(self), "format": self.format.to_json()}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> NumericColumn:
        """Rebuilds a column from `to_json`'s value."""
        fields = {key: value for key, value in state.items() if key != "kind"}
        return cls(**{**fields, "format": NumberFormat.from_json(state["format"])})


def is_extreme(numbers: np.ndarray) -> np.ndarray:
    """Tells which numbers are not of the others' scale: [N] bool.

    The spread is half the distance of the quartiles, or where half of the numbers are the same that
    of the others from it.
    """
    with np.errstate(over="ignore"):
        first, middle, third = np.quantile(numbers, [0.25, 0.5, 0.75], method="nearest")
        spread = third / 2 - first / 2
        distance = np.abs(numbers / 2 - middle / 2) * 2
        if spread == 0.0:
            others = distance[distance > 0.0]
            spread = float(np.quantile(others, 0.25, method="nearest")) if len(others) else 1.0
        return np.asarray(distance / EXTREME > spread)


class Standardizer:
    """Encodes all numeric columns of a table at once.

    Args:
        columns: The k fitted columns.
    """

    def __init__(self, columns: Sequence[NumericColumn]) -> None:
        def of(name: str) -> np.ndarray:
            return np.array([getattr(column, name) for column in columns], dtype=np.float64)

        self._medians, self._means, self._scales = of("median"), of("mean"), of("scale")
        self._limits = of("limit")
        self._least, self._most = -self._limits, self._limits
        low, high = of("low"), of("high")
        with np.errstate(over="ignore", invalid="ignore"):
            # As far outside as the training rows are apart, and more for those that hardly are.
            margin = np.fmax(high - low, self._scales)
            self._far_below, self._far_above = low - margin, high + margin

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Standardizes `numbers` ([N, k] float64, NaN for a gap) in place and returns them."""
        np.copyto(numbers, self._medians, where=np.isnan(numbers))
        with np.errstate(over="ignore"):
            numbers -= self._means
            numbers /= self._scales
        return np.clip(numbers, self._least, self._most, out=numbers)

    def far_outside(self, numbers: np.ndarray) -> np.ndarray:
        """Tells which numbers ([N, k] float64) are far outside of training's: [N, k] bool."""
        return np.asarray((numbers < self._far_below) | (numbers > self._far_above))


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of categories: one output a level, and `missing` and `other` where fitted.

    A level is found by any of its spellings (`mlops.data.cells.levels.Levels`).

    Attributes:
        levels: The levels that have an output of their own.
        missing: Whether there were gaps.
        other: Whether there were other levels, which share an output.
        rare: The most frequent of these, so that none is taken for another level's spelling.
    """

    name: str
    levels: tuple[str, ...]
    missing: bool
    other: bool
    rare: tuple[str, ...] = ()
    kind: ClassVar[Kind] = "categorical"

    @classmethod
    def fit(cls, name: str, values: Any, max_levels: int = MAX_LEVELS) -> CategoricalColumn:
        """Learns the `max_levels` most frequent levels of a column that has been read.

        Args:
            name: The column's name.
            values: Its levels (`mlops.data.columns.reading`): [N] `Categorical`.
            max_levels: Most levels; rarer ones share the output `other`.

        Raises:
            TableError: Every cell is missing.
        """
        codes, texts = texts_of(name, values)
        rows = np.bincount(codes[codes >= 0], minlength=len(texts))
        counts = {texts[code]: int(rows[code]) for code in np.flatnonzero(rows)}
        if not counts:
            raise TableError(all_missing(name))
        ordered = sorted(counts, key=lambda text: (-counts[text], text))
        frequent, rare = ordered[:max_levels], ordered[max_levels : max_levels + MOST_RARE]
        missing = bool((codes < 0).any())
        return cls(name, tuple(sorted(frequent)), missing, bool(rare), tuple(rare))

    @property
    def width(self) -> int:
        """Number of outputs."""
        return len(self.levels) + self.missing + self.other

    def write(self, values: Any, out: np.ndarray, tally: Tally | None = None) -> None:
        """Encodes a raw column ([N] array) into `out`: [N, width] float32, zeros.

        Raises:
            TableError: Its cells are no single values.
        """
        codes, texts = texts_of(self.name, values)
        places = np.array([*map(self.table.place, texts), GAP], dtype=np.int64)
        # The last entry is where code -1, a gap, points.
        hot = np.array([*map(self.output, places[:-1]), self.output(GAP)], dtype=np.int64)[codes]
        rows = np.flatnonzero(hot >= 0)
        out[rows, hot[rows]] = 1.0
        if tally is not None:
            found = places[codes]
            tally.add("unknown_level", self.name, int((found == UNKNOWN).sum()))
            if not self.missing:
                tally.add("new_gap", self.name, int((found == GAP).sum()))

    def output(self, place: int) -> int:
        """Returns the output of a place in the levels, of `GAP` or `UNKNOWN`; -1 for none."""
        if 0 <= place < len(self.levels):
            return place
        if place == GAP and self.missing:
            return len(self.levels)
        return len(self.levels) + self.missing if self.other else -1

    @cached_property
    def table(self) -> Levels:
        """The spellings of the levels."""
        return Levels((*self.levels, *self.rare))

    def to_json(self) -> dict[str, Any]:
        """Returns the whole state as JSON values."""
        lists = {"levels": list(self.levels), "rare": list(self.rare)}
        return {"kind": self.kind, **asdict(self), **lists}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> CategoricalColumn:
        """Rebuilds a column from `to_json`'s value."""
        fields = {key: value for key, value in state.items() if key != "kind"}
        rare = tuple(fields.get("rare", ()))
        return cls(**{**fields, "levels": tuple(fields["levels"]), "rare": rare})
