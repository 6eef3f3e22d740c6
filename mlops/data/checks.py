"""What makes a table unusable, found before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mlops.data.cells.spelling import meant_names
from mlops.data.columns.finding import read_column
from mlops.data.columns.kinds import some_of
from mlops.data.columns.labels import (
    Label,
    Target,
    codes_in,
    read_target,
    target_problems,
    without_rare,
)
from mlops.data.columns.names import nearest
from mlops.data.columns.reading import LineOf, ReadColumn, Reading, read_as
from mlops.data.notes import Note
from mlops.data.parts.rowhash import row_hashes
from mlops.data.screening import screen
from mlops.data.sources import RawTable
from mlops.errors import TableError
from mlops.settings.wishes import Wish, fits, wish_for


@dataclass(frozen=True, eq=False)
class CheckedTable:
    """A table taken apart into features and target, with everything that is wrong with it.

    Attributes:
        features: The columns to learn from, read (`mlops.data.columns.reading`): [N rows].
        codes: Codes into `labels`, -1 in a row that is left out: [N] int64.
        labels: The labels in order.
        problems: One line each; only a table without any may be used.
        readings: How each of the features is read.
        notes: What was noticed.
        constants: Columns that are no features since they are the same in every row, read.
    """

    features: pd.DataFrame
    codes: np.ndarray
    labels: list[Label]
    problems: list[str]
    readings: tuple[Reading, ...] = ()
    notes: tuple[Note, ...] = ()
    constants: tuple[ReadColumn, ...] = ()

    @property
    def identity(self) -> pd.DataFrame:
        """The columns that tell rows apart, also when the table has grown: [N rows].

        When another value comes into a column that has been the same in every row, it becomes a
        feature, and no row is to become another one by that.
        """
        columns = {name: self.features[name].array for name in self.features}
        columns |= {column.reading.name: column.values for column in self.constants}
        return pd.DataFrame(columns, index=self.features.index, copy=False)


EQUAL_SHARE = 0.01
_NOTHING = np.array([], dtype=np.int64)


def check_table(
    raw: RawTable,
    target: str,
    fewest_rows: int,
    wishes: Mapping[str, Wish] | None = None,
) -> CheckedTable:
    """Checks a table to learn from, and reads it.

    Args:
        raw: The table as read; its frame is empty afterwards.
        target: The column to predict.
        fewest_rows: Rows a class needs to appear in every part.
        wishes: What the user says of columns, by name or pattern.
    """
    wishes = wishes or {}
    names = [str(name) for name in raw.frame if name != target]
    n_rows = len(raw.frame)
    if problems := _problems_of_shape(raw.frame, target):
        return CheckedTable(pd.DataFrame(index=range(n_rows)), _NOTHING, [], problems)
    problems = _unfit(wishes, names, target)
    dropped = [name for name in names if wish_for(name, wishes) == "drop"]
    # Text takes more room than what is read of it, so a column is let go once it is read.
    arrays = raw.give_columns()
    found, unusable = _read_target(
        raw, target, arrays.pop(target), fewest_rows, wishes.get(target) == "categorical"
    )
    for name in dropped:
        del arrays[name]
    columns, unread = _read_columns(raw, arrays, wishes)
    problems += [*unread, *unusable]
    if problems:
        return CheckedTable(pd.DataFrame(index=range(n_rows)), found.codes, found.labels, problems)
    notes = [Note("dropped", "left out, as wished", column=name, wished=True) for name in dropped]
    kept, told = screen(columns, found.codes, wishes)
    same = {note.column for note in told if note.code == "constant_column"}
    if not kept:
        problems.append(
            f"a table must have a column to learn from, got none of {some_of(names)}; all are left "
            f"out: {'; '.join(map(str, [*notes, *told][:5]))}"
        )
    return CheckedTable(
        _frame(kept, n_rows),
        found.codes,
        found.labels,
        problems,
        tuple(column.reading for column in kept),
        (*notes, *told, *found.notes),
        tuple(column for column in columns if column.reading.name in same),
    )


def _problems_of_shape(frame: pd.DataFrame, target: str) -> list[str]:
    problems = [] if target in frame else [_no_target(target, list(frame))]
    if not any(name != target for name in frame):
        problems.append(
            f"a table must have a column besides target `{target}`, got none; add features, and "
            "check that commas separate the cells"
        )
    if len(frame) == 0:
        problems.append("a table must have rows, got none below its header; add rows")
    return problems


def _unfit(wishes: Mapping[str, Wish], names: list[str], target: str) -> list[str]:
    """Tells of wishes that fit no column."""
    meant = [*names, *([target] if wishes.get(target) == "categorical" else [])]
    return [
        f"`data.columns`, `drop` and `keep` must name feature columns, got `{pattern}`, which fits "
        f"none; {nearest(pattern, names)}"
        for pattern in wishes
        if not any(fits(name, pattern) for name in meant)
    ]


def check_test_table(raw: RawTable, target: str, training: CheckedTable) -> CheckedTable:
    """Checks a table that is another's test part, and reads it as the other one.

    Columns the training table lacks are left out.
    """
    wanted = [target, *(reading.name for reading in training.readings)]
    frame = raw.frame.rename(columns=meant_names(map(str, raw.frame), wanted))
    problems = [] if target in frame else [_no_target(target, list(frame))]
    absent = [reading.name for reading in training.readings if reading.name not in frame]
    if absent:
        problems.append(
            f"it must have every column of the training table, {some_of(absent)} absent; add the "
            "column(s), or drop them from the training table"
        )
    if len(frame) == 0:
        problems.append("a table must have rows, got none below its header; add rows")
    columns = []
    for reading in training.readings:
        if reading.name in frame:
            try:
                columns.append(read_as(reading, frame[reading.name].array, raw.line_of))
            except TableError as error:
                problems += error.problems
    codes, notes = _NOTHING, list[Note]()
    if target in frame and len(frame):
        codes, notes, more = _test_codes(frame[target], training.labels, raw.line_of)
        problems += more
    title = f"test file `{raw.source}`: "
    return CheckedTable(
        _frame(columns, len(frame)),
        codes,
        training.labels,
        [f"{title}{problem}" for problem in problems],
        training.readings,
        tuple(
            replace(note, text=f"{title}{note.text}")
            for note in (*notes, *(note for column in columns for note in column.notes))
            if note.code != "number_format"
        ),
    )


def _read_columns(
    raw: RawTable, arrays: dict[str, Any], wishes: Mapping[str, Wish]
) -> tuple[list[ReadColumn], list[str]]:
    """Reads columns, which are taken out of `arrays` one by one."""
    columns, problems = [], []
    for name in list(arrays):
        wish = wish_for(name, wishes)
        wish = None if wish == "keep" else wish
        values = arrays.pop(name)
        try:
            columns.append(
                read_column(name, values, wish, decimal=raw.decimal, line_of=raw.line_of)
            )
        except TableError as error:
            problems += error.problems
    return columns, problems


def _read_target(
    raw: RawTable, target: str, values: Any, fewest_rows: int, are_classes: bool
) -> tuple[Target, list[str]]:
    try:
        found = read_target(target, values, raw.line_of)
    except TableError as error:
        return Target(_NOTHING, []), list(error.problems)
    problems = target_problems(target, found, len(values), are_classes=are_classes)
    if not problems:
        found = without_rare(target, found, fewest_rows)
        counts = np.bincount(found.codes[found.codes >= 0], minlength=len(found.labels))
        small = [f"{found.labels[i]!r} ({counts[i]})" for i in np.flatnonzero(counts < fewest_rows)]
        if small:
            problems.append(
                f"at least 2 classes of target `{target}` must have {fewest_rows} rows, one for "
                f"each part, got {', '.join(small[:5])}; add rows, or merge classes"
            )
    return found, problems


def _no_target(target: str, names: list[str]) -> str:
    return f"no column is called `{target}`, the target; {nearest(target, names)}"


def _frame(columns: list[ReadColumn], n_rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {column.reading.name: column.values for column in columns},
        index=pd.RangeIndex(n_rows),
        copy=False,
    )


def empty_columns(features: pd.DataFrame, rows: np.ndarray) -> list[str]:
    """Names the columns without a value in these rows ([N] int64)."""
    gaps = {name: features[name].isna().to_numpy() for name in features}
    return [name for name, gap in gaps.items() if gap.sum() >= len(rows) and gap[rows].all()]


def equal_rows(hashes: np.ndarray, codes: np.ndarray) -> list[Note]:
    """Tells of rows that are equal to another one, the target too.

    Args:
        hashes: `row_hashes` of the columns: [N] uint64.
        codes: The target, -1 in a row that is left out: [N] int64.
    """
    used = codes >= 0
    whole = np.sort(hashes[used] + codes[used].astype(np.uint64))  # sooner than np.unique's table
    repeated = int((whole[1:] == whole[:-1]).sum())
    if repeated < EQUAL_SHARE * len(whole):  # some may be by chance
        return []
    told = f"{repeated:,} row(s) are equal to an earlier one, the target too; they are kept"
    return [Note("equal_rows", told, cells=repeated)]


def repeated_rows(table: CheckedTable, test: CheckedTable) -> list[Note]:
    """Warns of rows of a test table that the training table has too, whatever their target."""
    known = row_hashes(table.features)[table.codes >= 0]
    asked = row_hashes(test.features)[test.codes >= 0]
    repeated = int(np.isin(asked, known).sum())
    if not repeated:
        return []
    told = (
        f"{repeated:,} of {len(asked):,} rows of the test file are in the training file too, so "
        "the test scores tell more of what was learned by heart than of new rows"
    )
    return [Note("test_repeats", told, cells=repeated, warning=True)]


def digest_of(*tables: CheckedTable, parts: Sequence[np.ndarray] = ()) -> str:
    """Returns 16 hex digits that are equal for equal content that is equally split.

    Names, cells and their order count; how a column of numbers or text was stored does not.

    Args:
        tables: The table, and the test table if there is one.
        parts: The rows of each part of the first one: [N_i] int64.
    """
    digest = hashlib.sha256()
    for table in tables:
        for name in table.features:
            digest.update(f"\n{name}\n".encode())
            for piece in _content(table.features[name].array):
                digest.update(piece)
        digest.update(repr(table.labels).encode())
        digest.update(table.codes.tobytes())
    for rows in parts:
        digest.update(f"\n{len(rows)}\n".encode())
        digest.update(rows.tobytes())
    return digest.hexdigest()[:16]


def _test_codes(
    column: pd.Series, labels: list[Label], line_of: LineOf
) -> tuple[np.ndarray, list[Note], list[str]]:
    name = str(column.name)
    try:
        codes, unseen = codes_in(name, column.array, labels)
    except TableError as error:
        return _NOTHING, [], list(error.problems)
    problems, notes = list[str](), list[Note]()
    if unseen and labels:
        problems.append(
            f"target `{name}` must hold classes of the training table, {some_of(labels)}, got "
            f"{some_of(unseen)}; drop these rows or add such rows to the training table"
        )
    missing = np.flatnonzero(codes < 0)
    if len(missing) == len(codes):
        problems.append(f"target `{name}` must have a value in some row, got none; add the labels")
    elif len(missing) and not unseen:
        told = f"{len(missing):,} row(s) without a target left out"
        line = line_of(int(missing[0]))
        notes.append(Note("no_target", told, column=name, cells=len(missing), line=line))
    return codes, notes, problems


def _content(values: Any) -> list[bytes | memoryview]:
    if not isinstance(values, pd.Categorical):
        numbers = np.asarray(values)
        if numbers.dtype.kind == "M":
            return [numbers.astype("datetime64[us]").astype(np.int64).data]
        numbers = numbers.astype(np.float64)
        return [(numbers + 0.0).data]  # -0.0 and 0.0 are equal
    used = np.unique(values.codes[values.codes >= 0])
    levels = sorted(str(values.categories[code]) for code in used)
    places = {text: place for place, text in enumerate(levels)}
    ranks = [places.get(str(text), -1) for text in values.categories]
    return [repr(levels).encode(), np.array([*ranks, -1], dtype=np.int64)[values.codes].data]
