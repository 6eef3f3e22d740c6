"""One checked table in three parts: training, validation and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

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
from mlops.data.columns.kinds import some_of, type_of
from mlops.data.columns.labels import Label
from mlops.data.columns.reading import Reading, read_column
from mlops.data.files.names import nearest
from mlops.data.notes import Note
from mlops.data.parts.rowhash import row_hashes
from mlops.data.parts.split import SplitSpec, split_rows
from mlops.data.sources import RawTable, read_file, read_openml, read_sklearn, read_synthetic
from mlops.data.synthetic import TARGET, SyntheticSpec
from mlops.errors import InputError, TableError
from mlops.settings.wishes import OF_TEXT, Wish, wish_for


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


def load_parts(
    *,
    path: str | Path | None = None,
    target: str | None = None,
    test_path: str | Path | None = None,
    sklearn: str | None = None,
    openml: int | None = None,
    synthetic: SyntheticSpec | None = None,
    split_seed: int = 0,
    group: str | None = None,
    time: str | None = None,
    validation_fraction: float = 0.16,
    test_fraction: float = 0.2,
    wishes: Mapping[str, Wish] | None = None,
    separator: str | None = None,
    encoding: str | None = None,
) -> Parts:
    """Reads a table, checks it, and splits it, see `mlops.data.parts.split`.

    Args:
        path: A file, see `mlops.data.sources`.
        target: The column to predict; the default is the publisher's choice, for a file `target`.
        test_path: A file that is the test part. The validation part then is the same share of the
            other rows that it would be without: validation_fraction / (1 - test_fraction).
        sklearn: A table of scikit-learn: breast_cancer, digits, iris or wine.
        openml: The number of a table on OpenML.
        synthetic: A table to generate.
        split_seed: Another one gives other parts.
        group: A column; the rows that have the same value in it are in one part. It is no feature
            unless it is wished.
        time: A column; the latest rows are the test part, those before them for validation.
        validation_fraction: Share of all rows for validation.
        test_fraction: Share of all rows for the test.
        wishes: What the user says of columns, by name or pattern.
        separator: What separates the cells of files of text; found by default.
        encoding: Their encoding; found by default.

    Raises:
        TableError: The table cannot be learned from; one line for each problem found.
        InputError: The arguments do not name one source, or one split.
    """
    spec = SplitSpec(split_seed, group, time, validation_fraction, test_fraction)
    _check_arguments([path, sklearn, openml, synthetic], spec)
    kept = {target or TARGET, group}

    def is_text(name: str) -> bool:
        return name.strip() in kept or wish_for(name, wishes or {}) in OF_TEXT

    def read(file: str | Path, is_text: Callable[[str], bool]) -> RawTable:
        return read_file(file, separator=separator, encoding=encoding, is_text=is_text)

    raw = _read(sklearn, openml, synthetic) if path is None else read(path, is_text)
    target = _target_of(raw, target)
    _check_split_columns(raw, target, spec)
    columns = tuple(map(str, raw.frame))  # it is taken apart below
    if group is not None:
        type_of(group, raw.frame[group].array)  # lists are refused
    groups = None if group is None else raw.frame[group]
    times = None if time is None else _times(raw, time, wishes or {})
    if group is not None and wish_for(group, wishes or {}) is None:
        wishes = {**(wishes or {}), group: "drop"}

    table = check_table(raw, target, 3 if test_path is None else 2, wishes)
    tables = [table]
    if test_path is not None:
        # What is a plain number by itself may be written otherwise in its column: `1.234`.
        plain = {r.name for r in table.readings if r.kind == "numeric" and r.numbers == PLAIN}
        test_raw = read(test_path, lambda name: name.strip() not in plain)
        tables.append(check_test_table(test_raw, target, table))
    _raise_if([problem for checked in tables for problem in checked.problems])

    hashes = row_hashes(table.identity)
    repeats = equal_rows(hashes, table.codes)
    if len(tables) > 1:
        repeats += repeated_rows(tables[0], tables[1])
    rows, split_notes = split_rows(
        table.identity,
        table.codes,
        spec if test_path is None else spec.beside_test_file(),
        group=groups,
        time=times,
        line_of=lambda row: raw.line_of(row) or row + 1,
        hashes=hashes,
    )
    table, more_notes = _without_empty(table, rows[0])
    parts = [_part(table, chosen) for chosen in rows]
    parts += [_part(held_out, np.flatnonzero(held_out.codes >= 0)) for held_out in tables[1:]]
    train, validation, test = parts
    return Parts(
        train=train,
        validation=validation,
        test=test,
        classes=table.labels,
        target_name=target,
        name=raw.name,
        source=raw.source,
        digest=digest_of(*tables, parts=rows),
        readings=table.readings,
        notes=(
            *raw.notes,
            *(note for checked in tables for note in checked.notes),
            *repeats,
            *split_notes,
            *more_notes,
        ),
        columns=columns,
    )


def _times(raw: RawTable, name: str, wishes: Mapping[str, Wish]) -> pd.Series:
    """Reads the column that rows are split by, as it is read if it is a feature."""
    wish = wish_for(name, wishes)
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


def _read(sklearn: str | None, openml: int | None, synthetic: SyntheticSpec | None) -> RawTable:
    if sklearn is not None:
        return read_sklearn(sklearn)
    if openml is not None:
        return read_openml(openml)
    assert synthetic is not None
    return read_synthetic(synthetic)


def _part(table: CheckedTable, rows: np.ndarray) -> Part:
    return Part(table.features, rows, table.codes[rows])


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise TableError(problems)


def _target_of(raw: RawTable, target: str | None) -> str:
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


def _check_arguments(sources: list[object], spec: SplitSpec) -> None:
    problems = []
    given = sum(source is not None for source in sources)
    if given != 1:
        problems.append(
            "a table must have one source, `path`, `sklearn`, `openml` or `synthetic`, got "
            f"{given}; give exactly one of them"
        )
    if spec.group is not None and spec.time is not None:
        problems.append(
            f"`group` and `time` must not both be given, got `{spec.group}` and `{spec.time}`; "
            "leave one out"
        )
    shares = {name: getattr(spec, name) for name in ("validation_fraction", "test_fraction")}
    for name, share in shares.items():
        if not 0 < share < 1:
            problems.append(f"`{name}` must be above 0 and below 1, got {share}; 0.2 is usual")
    if not problems and sum(shares.values()) >= 1:
        problems.append(
            "`validation_fraction` and `test_fraction` must leave rows to train on, got a sum of "
            f"{sum(shares.values()):g}; keep it below 1"
        )
    if problems:
        raise InputError(problems)
