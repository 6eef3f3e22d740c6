"""Preprocessing fitted on a training part, kept as plain JSON.

A `FeatureEncoder` is a row of column encoders (`mlops.data.encoders`). Transforming needs numpy and
pandas only: it is what a served model runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, KeysView, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd

from mlops.data.columns import as_numbers, kind_of, some_of
from mlops.data.encoders import MAX_LEVELS, CategoricalColumn, Column, NumericColumn, Standardizer
from mlops.errors import TableError

FORMAT = 1
BLOCK_CELLS = 2**20  # rows are encoded in blocks of this many cells: 4 MB of output stay in cache


@dataclass(frozen=True)
class FeatureEncoder:
    """Fitted preprocessing: raw columns in, one float32 matrix out.

    Its state is plain JSON; an encoder read back gives bit-identical output. It is immutable and
    may be used from several threads. A row's code does not depend on the rows beside it.
    """

    columns: tuple[Column, ...]

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, rows: np.ndarray | None = None, *, max_levels: int = MAX_LEVELS
    ) -> FeatureEncoder:
        """Learns the preprocessing of every column of `frame`.

        Args:
            frame: Raw feature columns.
            rows: Positions of the rows to learn from, [N] int64; all rows by default. The frame is
                not copied: columns are visited one by one.
            max_levels: Most levels of a categorical column; rarer ones share the output `other`.

        Raises:
            TableError: A column cannot be used; one line for each such column.
        """
        columns: list[Column] = []
        problems = []
        for name, values in _arrays(frame).items():
            try:
                kind = kind_of(name, values)
                chosen = values if rows is None else values.take(rows)
                if kind == "numeric":
                    columns.append(NumericColumn.fit(name, chosen))
                else:
                    columns.append(CategoricalColumn.fit(name, chosen, max_levels))
            except TableError as error:
                problems += error.problems
        if problems:
            raise TableError(problems)
        return cls(tuple(columns))

    @cached_property
    def width(self) -> int:
        """Number of outputs of a row."""
        return sum(column.width for column in self.columns)

    def transform(self, frame: pd.DataFrame, rows: np.ndarray | None = None) -> np.ndarray:
        """Encodes rows of a raw table; columns the encoder does not know are ignored.

        Args:
            frame: Raw columns, in any order.
            rows: Positions of the rows to encode, in the wanted order: [N] int64; all rows by
                default.

        Returns:
            The codes, C-contiguous: [N, width] float32.

        Raises:
            TableError: A column is absent, or a cell of a numeric column is no finite number.
        """
        cells = _arrays(frame)
        self._check_names(cells.keys())
        n_rows = len(frame) if rows is None else len(rows)
        out = np.zeros((n_rows, self.width), dtype=np.float32)
        for block in _blocks(n_rows, max(1, BLOCK_CELLS // max(1, self.width))):
            chosen = block if rows is None else rows[block]
            self._write({name: cells[name][chosen] for name in self._names}, out[block])
        return out

    def transform_records(self, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Encodes rows given as JSON objects, as an endpoint receives them.

        The codes are those of `transform`, without the cost of making a frame. Every row must have
        every column, with null where there is no value, so that a misspelt name does not pass for a
        gap.

        Returns:
            The codes, C-contiguous: [N, width] float32.

        Raises:
            TableError: A column is absent, or a cell of a numeric column is no finite number.
        """
        for record in records:
            self._check_names(record.keys())
        cells = {
            name: np.fromiter((record[name] for record in records), object, len(records))
            for name in self._names
        }
        out = np.zeros((len(records), self.width), dtype=np.float32)
        self._write(cells, out)
        return out

    def encode(self, numbers: np.ndarray, texts: Sequence[Sequence[str | None]]) -> np.ndarray:
        """Encodes cells that are read already: what `transform` does, less the reading.

        Args:
            numbers: The numeric columns, in their order: [N, k] float64, NaN for a gap. They are
                overwritten.
            texts: The N cells of each categorical column, in their order, as `level_text` names
                them; None for a gap.

        Returns:
            The codes, C-contiguous: [N, width] float32.
        """
        standardized = self._standardizer(numbers)
        if not self._categorical:
            return standardized.astype(np.float32, order="C")
        out = np.zeros((len(numbers), self.width), dtype=np.float32)
        out[:, [self._names[column.name] for column in self._numeric]] = standardized
        hot = np.array(
            [
                [places.get(cell, other) for cell in cells]
                for (places, other), cells in zip(self._places, texts, strict=True)
            ],
            dtype=np.int64,
        )
        column, row = np.nonzero(hot >= 0)
        out[row, hot[column, row]] = 1.0
        return out

    def _check_names(self, names: KeysView[str]) -> None:
        if not self._names.keys() <= names:
            absent = [name for name in self._names if name not in names]
            raise TableError(
                f"a row must have every column of the training table, {some_of(absent)} absent; "
                f"got {some_of(list(names)) or 'no column'}; leave a cell empty (null) where there "
                "is no value"
            )

    def _write(self, cells: Mapping[str, Any], out: np.ndarray) -> None:
        """Encodes an array of cells for each column into `out`: [N, width] float32, zeros."""
        numbers = np.empty((len(out), len(self._numeric)))
        problems = []
        for place, column in enumerate(self._numeric):
            try:
                numbers[:, place] = as_numbers(column.name, cells[column.name])
            except TableError as error:
                problems += error.problems
        for category in self._categorical:
            first = self._names[category.name]
            try:
                category.write(cells[category.name], out[:, first : first + category.width])
            except TableError as error:
                problems += error.problems
        if problems:
            raise TableError(problems)
        out[:, [self._names[column.name] for column in self._numeric]] = self._standardizer(numbers)

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
    def _places(self) -> list[tuple[dict[str | None, int], int]]:
        """For each categorical column the place in a code of every text, and of other texts."""
        places = []
        for column in self._categorical:
            first = self._names[column.name]
            outputs, other = column.outputs()
            known = {text: first + n if n >= 0 else -1 for text, n in outputs.items()}
            places.append((known, first + other if other >= 0 else -1))
        return places

    @cached_property
    def _standardizer(self) -> Standardizer:
        return Standardizer(self._numeric)

    def to_json(self) -> dict[str, Any]:
        """Returns the whole state as JSON values."""
        columns = [{"kind": column.kind, **asdict(column)} for column in self.columns]
        for column in columns:
            if column["kind"] == "categorical":
                column["levels"] = list(column["levels"])
        return {"format": FORMAT, "columns": columns}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> FeatureEncoder:
        """Rebuilds an encoder from `to_json`'s value.

        Raises:
            TableError: The value is of another format or damaged.
        """
        if state.get("format") != FORMAT:
            raise TableError(
                f"preprocessing must be of format {FORMAT}, got {state.get('format')!r}; use the "
                "version of this package that wrote the model, or train it again"
            )
        try:
            return cls(tuple(_column_from_json(column) for column in state["columns"]))
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(
                f"preprocessing is damaged ({error!r}); train the model again"
            ) from error


def _column_from_json(state: dict[str, Any]) -> Column:
    fields = {key: value for key, value in state.items() if key != "kind"}
    if state["kind"] == "numeric":
        return NumericColumn(**fields)
    if state["kind"] == "categorical":
        return CategoricalColumn(**{**fields, "levels": tuple(fields["levels"])})
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
