"""One checked table in three parts: training, validation and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlops.data.cells.numbers import PLAIN
from mlops.data.checks import (
    CheckedTable,
    check_table,
    check_test_table,
    digest_of,
    empty_columns,
    equal_rows,
    repeated_rows,
)
from mlops.data.columns.finding import read_column
from mlops.data.columns.kinds import some_of, type_of
from mlops.data.columns.labels import Label
from mlops.data.columns.names import nearest
from mlops.data.columns.reading import Reading
from mlops.data.notes import Note
from mlops.data.parts.rowhash import row_hashes
from mlops.data.parts.split import SplitSpec, split_rows
from mlops.data.sources import RawTable, read_file, read_openml, read_sklearn, read_synthetic
from mlops.data.synthetic import TARGET, SyntheticSpec
from mlops.errors import TableError
from mlops.settings.sections import DataSettings
from mlops.settings.wishes import OF_TEXT, wish_for


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a table.

    The parts of one file share its table and hold row positions, so that splitting copies nothing.

    Attributes:
        table: Raw feature columns of the whole table.
        rows: Positions of this part's rows, ascending: [N] int64.
        target: Codes into `Parts.classes`: [N] int64.
    """

    table: pd.DataFrame
    rows: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.rows)

    @property
    def frame(self) -> pd.DataFrame:
        """The raw feature columns of this part, copied anew at each call: [N rows]."""
        return self.table.take(self.rows).reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Parts:
    """A table, checked and split.

    Attributes:
        train: Rows to learn from.
        validation: Rows to compare trials by.
        test: Rows to score the study's result by, once.
        classes: The labels as JSON values, in order; target codes point into it.
        target_name: The target column.
        name: Short name of the table, such as "phoneme".
        source: Where it came from: a path, "sklearn:digits", "openml:1590" or "synthetic:...".
        digest: 16 hex digits, equal for equal content that is equally split.
        readings: How each feature column is read.
        notes: What was noticed and decided.
        columns: The names of all columns of the table, the target and those that are left out too.
    """

    train: Part
    validation: Part
    test: Part
    classes: list[Label]
    target_name: str
    name: str
    source: str
    digest: str
    readings: tuple[Reading, ...]
    notes: tuple[Note, ...]
    columns: tuple[str, ...] = ()


def load_parts(data: DataSettings) -> Parts:
    """Reads a table, checks it, and splits it, see `mlops.data.parts.split`.

    The validation part beside a test file is the same share of the other rows that it would be
    without one: validation_fraction / (1 - test_fraction). A column of groups is no feature unless
    it is wished.

    Args:
        data: Where the table is, what is said of its columns, and how it is split.

    Raises:
        TableError: The table cannot be learned from; one line for each problem found.
        InputError: The table that is to be generated cannot be.
    """
    spec = SplitSpec(
        data.split_seed, data.group, data.time, data.validation_fraction, data.test_fraction
    )
    raw = _read(data)
    target = target_of(raw, data.target)
    _check_split_columns(raw, target, spec)
    columns = tuple(map(str, raw.frame))  # it is taken apart below
    groups, times = _groups(raw, data), _times(raw, data)

    tables = _checked(raw, target, data)
    table = tables[0]
    hashes = row_hashes(table.identity)
    repeats = equal_rows(hashes, table.codes)
    if len(tables) > 1:
        repeats += repeated_rows(tables[0], tables[1])
    rows, split_notes = split_rows(
        table.identity,
        table.codes,
        spec if data.test_path is None else spec.beside_test_file(),
        group=groups,
        time=times,
        line_of=lambda row: raw.line_of(row) or row + 1,
        hashes=hashes,
    )
    table, more_notes = _without_empty(table, rows[0])
    parts = [_part(table, chosen) for chosen in rows]
    parts += [_part(held_out, np.flatnonzero(held_out.codes >= 0)) for held_out in tables[1:]]
    train, validation, test = parts
    of_tables = [note for checked in tables for note in checked.notes]
    return Parts(
        train,
        validation,
        test,
        classes=table.labels,
        target_name=target,
        name=raw.name,
        source=raw.source,
        digest=digest_of(*tables, parts=rows),
        readings=table.readings,
        notes=(*raw.notes, *of_tables, *repeats, *split_notes, *more_notes),
        columns=columns,
    )


def _read(data: DataSettings) -> RawTable:
    if data.path is not None:
        kept = {data.target or TARGET, data.group}
        wishes = data.wishes
        return _read_file(
            data, data.path, lambda name: name.strip() in kept or wish_for(name, wishes) in OF_TEXT
        )
    if data.sklearn is not None:
        return read_sklearn(data.sklearn)
    if data.openml is not None:
        return read_openml(data.openml)
    return read_synthetic(SyntheticSpec(**data.synthetic.model_dump()))


def _read_file(data: DataSettings, path: str, is_text: Callable[[str], bool]) -> RawTable:
    return read_file(path, separator=data.separator, encoding=data.encoding, is_text=is_text)


def _checked(raw: RawTable, target: str, data: DataSettings) -> list[CheckedTable]:
    """Checks the table, and the test file if there is one: what is wrong with both at once."""
    wishes = data.wishes
    if data.group is not None and wish_for(data.group, wishes) is None:
        wishes = {**wishes, data.group: "drop"}
    table = check_table(raw, target, 3 if data.test_path is None else 2, wishes)
    tables = [table]
    if data.test_path is not None:
        # What is a plain number by itself may be written otherwise in its column: `1.234`.
        plain = {r.name for r in table.readings if r.kind == "numeric" and r.numbers == PLAIN}
        test_raw = _read_file(data, data.test_path, lambda name: name.strip() not in plain)
        tables.append(check_test_table(test_raw, target, table))
    if problems := [problem for checked in tables for problem in checked.problems]:
        raise TableError(problems)
    return tables


def _groups(raw: RawTable, data: DataSettings) -> pd.Series | None:
    if data.group is None:
        return None
    type_of(data.group, raw.frame[data.group].array)  # lists are refused
    return raw.frame[data.group]


def _times(raw: RawTable, data: DataSettings) -> pd.Series | None:
    """Reads the column that rows are split by, as it is read if it is a feature."""
    name = data.time
    if name is None:
        return None
    wish = wish_for(name, data.wishes)
    wish = None if wish in ("keep", "drop") else wish
    read = read_column(name, raw.frame[name].array, wish, decimal=raw.decimal)
    return pd.Series(read.values, name=name)


def _without_empty(table: CheckedTable, rows: np.ndarray) -> tuple[CheckedTable, list[Note]]:
    """Leaves out the columns without a value in the training rows ([N] int64)."""
    empty = set(empty_columns(table.features, rows))
    if len(empty) == len(table.readings):
        raise TableError(
            f"some column must have a value in a training row, got none of {len(empty)}"
        )
    told = "no value in the training rows, left out"
    kept = tuple(reading for reading in table.readings if reading.name not in empty)
    notes = [Note("empty_column", told, column=name) for name in sorted(empty)]
    return replace(table, readings=kept), notes


def _part(table: CheckedTable, rows: np.ndarray) -> Part:
    return Part(table.features, rows, table.codes[rows])


def target_of(raw: RawTable, target: str | None) -> str:
    """Returns the column to predict: the publisher's choice if none is given.

    Raises:
        TableError: There is none.
    """
    chosen = raw.target if target is None else target
    if chosen is None:
        raise TableError(
            f"the column to predict must be named, got no `target`; choose one of "
            f"{some_of(list(raw.frame), most=20)}"
        )
    return chosen


def _check_split_columns(raw: RawTable, target: str, spec: SplitSpec) -> None:
    for setting, name in (("group", spec.group), ("time", spec.time)):
        if name is None:
            continue
        others = [other for other in map(str, raw.frame) if other != target]
        if name == target:
            raise TableError(
                f"`data.{setting}` must be another column than the target, got `{name}`; choose "
                f"one of {some_of(others, most=20)}"
            )
        if name not in raw.frame:
            raise TableError(
                f"`data.{setting}` must be a column of the table, got `{name}`; "
                f"{nearest(name, others)}"
            )
