"""Preprocessing fitted on a training part, kept as plain JSON.

A `FeatureEncoder` is a row of column encoders (`mlops.data.columns.encoders`). Transforming needs
numpy and pandas only: it is what a served model runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd

from mlops.data.cells.levels import GAP, UNKNOWN
from mlops.data.cells.numbers import NumberFormat
from mlops.data.cells.spelling import meant_names
from mlops.data.columns.date_columns import DateColumn
from mlops.data.columns.encoders import MAX_LEVELS, CategoricalColumn, NumericColumn, Standardizer
from mlops.data.columns.finding import read_frame
from mlops.data.columns.kinds import no_dates, no_numbers, some_of
from mlops.data.columns.reading import Reading
from mlops.data.columns.time_scales import NO_DURATIONS, Durations
from mlops.data.notes import Tally
from mlops.errors import TableError

FORMAT = 2
# Of release 0.1: numbers are written plainly, and what is odd about a row is not counted.
OLD_FORMAT = 1
Column = NumericColumn | CategoricalColumn | DateColumn
BLOCK_CELLS = 2**20  # rows are encoded in blocks of this many cells: 4 MB of output stay in cache


@dataclass(frozen=True)
class FeatureEncoder:
    """Fitted preprocessing: raw columns in, one float32 matrix out.

    Its state is plain JSON; an encoder read back gives bit-identical output. It is immutable and
    may be used from several threads. A row's code does not depend on the rows beside it.

    Attributes:
        columns: The fitted columns.
        durations: The differences between those of dates, whose outputs are the last.
    """

    columns: tuple[Column, ...]
    durations: Durations = NO_DURATIONS

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        rows: np.ndarray | None = None,
        *,
        readings: Sequence[Reading] | None = None,
        max_levels: int = MAX_LEVELS,
    ) -> FeatureEncoder:
        """Learns the preprocessing of every column of `frame`.

        Args:
            frame: Feature columns: raw, or read if their readings are given.
            rows: Positions of the rows to learn from, [N] int64; all rows by default. The frame is
                not copied: columns are visited one by one.
            readings: How each column has been read; found in the raw frame by default.
            max_levels: Most levels of a categorical column; rarer ones share the output `other`.

        Raises:
            TableError: A column cannot be used; one line for each such column.
        """
        arrays = _arrays(frame)
        if readings is None:
            read = read_frame(frame)
            readings = [column.reading for column in read]
            arrays = {column.reading.name: column.values for column in read}
        columns: list[Column] = []
        times: dict[str, np.ndarray] = {}
        problems = []
        for reading in readings:
            values = arrays[reading.name]
            chosen = values if rows is None else values.take(rows)
            try:
                if reading.kind == "numeric":
                    columns.append(NumericColumn.fit(reading.name, chosen, reading.numbers))
                elif reading.kind == "categorical":
                    columns.append(CategoricalColumn.fit(reading.name, chosen, max_levels))
                else:
                    times[reading.name] = np.asarray(chosen)
                    column = DateColumn.fit(reading.name, times[reading.name], reading.dates)
                    columns.append(column)
            except TableError as error:
                problems += error.problems
        if problems:
            raise TableError(problems)
        return cls(tuple(columns), Durations.fit(list(times), list(times.values())))

    @cached_property
    def width(self) -> int:
        """Number of outputs of a row."""
        return sum(column.width for column in self.columns) + self.durations.width

    def transform(
        self, frame: pd.DataFrame, rows: np.ndarray | None = None, tally: Tally | None = None
    ) -> np.ndarray:
        """Encodes rows of a table; columns the encoder does not know are ignored.

        Nothing is made of a row in silence: a cell that is no number where one is needed is
        refused, or, where there is a tally, a gap that is counted.

        Args:
            frame: Raw or read columns, in any order.
            rows: Positions of the rows to encode, in the wanted order: [N] int64; all rows by
                default.
            tally: Where to count what is odd about the rows.

        Returns:
            The codes, C-contiguous: [N, width] float32.

        Raises:
            TableError: A column is absent, or holds lists or other containers; without a tally
                also, a cell that must be a finite number is none.
        """
        cells = _arrays(frame)
        if not self._names.keys() <= cells.keys():
            meant = meant_names(cells, self._names)
            cells = {meant.get(name, name): values for name, values in cells.items()}
        self._check_names(cells.keys())
        n_rows = len(frame) if rows is None else len(rows)
        out = np.zeros((n_rows, self.width), dtype=np.float32)
        for block in _blocks(n_rows, max(1, BLOCK_CELLS // max(1, self.width))):
            chosen = block if rows is None else rows[block]
            self._write({name: cells[name][chosen] for name in self._names}, out[block], tally)
        return out

    def encode(
        self,
        numbers: np.ndarray,
        texts: Sequence[Sequence[str | None]],
        tally: Tally | None = None,
        times: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """Encodes cells that are read already: what `transform` does, less the reading.

        Args:
            numbers: The numeric columns, in their order: [N, k] float64, NaN for a gap. They are
                overwritten.
            texts: The N cells of each categorical column, in their order, as they are spelled; None
                for a gap.
            tally: Where to count what is odd about the rows.
            times: The columns of dates, in their order: each [N] datetime64, NaT for a gap.

        Returns:
            The codes, C-contiguous: [N, width] float32.
        """
        standardized = self._standardized(numbers, tally)
        if len(self._numeric) == len(self.columns):
            return standardized.astype(np.float32, order="C")
        out = np.zeros((len(numbers), self.width), dtype=np.float32)
        out[:, self._numeric_outputs] = standardized
        self._write_times(times, out, tally)
        if not self._categorical:
            return out
        hot = np.array(
            [
                [places[cell] if cell in places else self._place(n, cell, tally) for cell in cells]
                for n, (places, cells) in enumerate(zip(self._places, texts, strict=True))
            ],
            dtype=np.int64,
        )
        column, row = np.nonzero(hot >= 0)
        out[row, hot[column, row]] = 1.0
        return out

    def _write_times(
        self, times: Sequence[np.ndarray], out: np.ndarray, tally: Tally | None
    ) -> None:
        for column, of_column in zip(self._dates, times, strict=True):
            first = self._names[column.name]
            column.write(of_column, out[:, first : first + column.width])
            if tally is not None:
                tally.add("far_outside", column.name, column.outside(of_column))
                if not column.missing:
                    tally.add("new_gap", column.name, int(np.isnat(of_column).sum()))
        if self.durations.width:
            self.durations.write(times, out[:, -self.durations.width :])

    def _place(self, n: int, text: str | None, tally: Tally | None) -> int:
        """Finds the output of a text that is no level as it stands, of the n-th category."""
        column = self._categorical[n]
        place = GAP if text is None else column.table.place(text)
        if tally is not None:
            tally.add("unknown_level", column.name, place == UNKNOWN)
            tally.add("new_gap", column.name, place == GAP and not column.missing)
        output = column.output(place)
        return self._names[column.name] + output if output >= 0 else -1

    def _standardized(self, numbers: np.ndarray, tally: Tally | None) -> np.ndarray:
        if tally is not None:
            outside = self._standardizer.far_outside(numbers)
            if outside.any():  # seldom, and columns take longer to look at than cells
                for column, cells in zip(self._numeric, outside.sum(axis=0).tolist(), strict=True):
                    tally.add("far_outside", column.name, cells)
        return self._standardizer(numbers)

    def _check_names(self, names: KeysView[str]) -> None:
        if not self._names.keys() <= names:
            absent = [name for name in self._names if name not in names]
            raise TableError(
                f"a row must have every column of the training table, {some_of(absent)} absent; "
                f"got {some_of(list(names)) or 'no column'}; leave a cell empty (null) where there "
                "is no value"
            )

    def _write(self, cells: Mapping[str, Any], out: np.ndarray, tally: Tally | None) -> None:
        """Encodes an array of cells for each column into `out`: [N, width] float32, zeros."""
        numbers = np.empty((len(out), len(self._numeric)))
        problems = []
        for place, column in enumerate(self._numeric):
            try:
                numbers[:, place], odd = column.read(cells[column.name])
            except TableError as error:
                problems += error.problems
            else:
                if tally is not None:
                    tally.add("odd_cell", column.name, len(odd))
                elif len(odd):
                    problems.append(no_numbers(column.name, cells[column.name].take(odd)))
        for category in self._categorical:
            first = self._names[category.name]
            try:
                category.write(cells[category.name], out[:, first : first + category.width], tally)
            except TableError as error:
                problems += error.problems
        times = []
        for date in self._dates:
            try:
                of_date, odd = date.read(cells[date.name])
            except TableError as error:
                problems += error.problems
                continue
            times.append(of_date)
            if tally is not None:
                tally.add("odd_cell", date.name, len(odd))
            elif len(odd):
                problems.append(no_dates(date.name, cells[date.name].take(odd)))
        if problems:
            raise TableError(problems)
        out[:, self._numeric_outputs] = self._standardized(numbers, tally)
        self._write_times(times, out, tally)

    @cached_property
    def _names(self) -> dict[str, int]:
        """The raw columns, each with its first output."""
        firsts = accumulate((column.width for column in self.columns), initial=0)
        return {column.name: first for column, first in zip(self.columns, firsts, strict=False)}

    @cached_property
    def _numeric(self) -> list[NumericColumn]:
        return [column for column in self.columns if isinstance(column, NumericColumn)]

    @cached_property
    def _categorical(self) -> list[CategoricalColumn]:
        return [column for column in self.columns if isinstance(column, CategoricalColumn)]

    @cached_property
    def _dates(self) -> list[DateColumn]:
        return [column for column in self.columns if isinstance(column, DateColumn)]

    @cached_property
    def _numeric_outputs(self) -> list[int]:
        return [self._names[column.name] for column in self._numeric]

    @cached_property
    def _places(self) -> list[dict[str | None, int]]:
        """For each categorical column the place in a code of every level, as it is spelled."""
        return [
            {
                text: self._names[column.name] + column.output(place)
                for text, place in column.table.exact.items()
            }
            for column in self._categorical
        ]

    @cached_property
    def _standardizer(self) -> Standardizer:
        return Standardizer(self._numeric)

    def to_json(self) -> dict[str, Any]:
        """Returns the whole state as JSON values."""
        return {
            "format": FORMAT,
            "columns": [column.to_json() for column in self.columns],
            "durations": self.durations.to_json(),
        }

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> FeatureEncoder:
        """Rebuilds an encoder from `to_json`'s value.

        Raises:
            TableError: The value is of another format or damaged.
        """
        if state.get("format") not in (FORMAT, OLD_FORMAT):
            raise TableError(
                f"preprocessing must be of format {OLD_FORMAT} or {FORMAT}, got "
                f"{state.get('format')!r}; use the version of this package that wrote the model, "
                "or train it again"
            )
        try:
            columns = tuple(_column_from_json(column) for column in state["columns"])
            if state["format"] == OLD_FORMAT:
                return cls(columns)
            return cls(columns, Durations.from_json(state["durations"]))
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(
                f"preprocessing is damaged ({error!r}); train the model again"
            ) from error


def _column_from_json(state: dict[str, Any]) -> Column:
    if state["kind"] == "numeric":
        return NumericColumn.from_json({"format": NumberFormat().to_json(), **state})
    if state["kind"] == "categorical":
        return CategoricalColumn.from_json(state)
    if state["kind"] == "date":
        return DateColumn.from_json(state)
    raise ValueError(f"unknown kind {state['kind']!r}")


def _arrays(frame: pd.DataFrame) -> dict[str, Any]:
    arrays = {str(name): column.array for name, column in frame.items()}
    if len(arrays) < frame.shape[1]:
        twice = [name for name, times in Counter(map(str, frame.columns)).items() if times > 1]
        raise TableError(
            f"column names must differ, got twice: {some_of(twice)}; rename or drop one"
        )
    return arrays


def _blocks(n_rows: int, size: int) -> Iterator[slice]:
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))
