"""What makes a table unusable, found before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops.data.columns import all_missing, as_levels, as_numbers, kind_of, level_text, some_of
from mlops.data.labels import Label, read_labels, target_problems
from mlops.data.sources import RawTable, nearest
from mlops.errors import TableError


@dataclass(frozen=True, eq=False)
class CheckedTable:
    """A table taken apart into features and target, with everything that is wrong with it.

    Attributes:
        features: Raw feature columns, a view of the table read: [N rows].
        codes: Codes into `labels`, -1 where the target is missing: [N] int64.
        labels: The labels in order.
        problems: One line each; only a table without any may be used.
    """

    features: pd.DataFrame
    codes: np.ndarray
    labels: list[Label]
    problems: list[str]


def check_table(raw: RawTable, target: str, fewest_rows: int) -> CheckedTable:
    """Checks a table to learn from.

    Args:
        raw: The table as read.
        target: The column to predict.
        fewest_rows: Rows a class needs to appear in every part.
    """
    features, problems = _without_target(raw.frame, target)
    if features.shape[1] == 0:
        problems.append(
            f"a table must have a column besides target `{target}`, got none; add features, and "
            "check that commas separate the cells"
        )
    if len(features) == 0:
        problems.append("a table must have rows, got none below its header; add rows")
    if len(features) == 0 or target not in raw.frame:
        return CheckedTable(features, np.array([], dtype=np.int64), [], problems)
    problems += [problem for name in features for problem in _column_problems(features[name])]
    codes, labels = read_labels(raw.frame[target].array)
    problems += target_problems(target, codes, labels, fewest_rows)
    return CheckedTable(features, codes, labels, problems)


def check_test_table(raw: RawTable, target: str, training: CheckedTable) -> CheckedTable:
    """Checks a table that is another's test part, and puts its columns in the other's order.

    Columns the training table lacks are left out.
    """
    features, problems = _without_target(raw.frame, target)
    absent = [name for name in training.features if name not in features]
    if absent:
        problems.append(
            f"it must have every column of the training table, {some_of(absent)} absent; add the "
            "column(s), or drop them from the training table"
        )
    features = features[[name for name in training.features if name in features]]
    if len(features) == 0:
        problems.append("a table must have rows, got none below its header; add rows")
    for name in features:
        problems += _test_column_problems(features[name], training.features[name])
    codes = np.array([], dtype=np.int64)
    if target in raw.frame:
        codes, more = _test_codes(raw.frame[target], training.labels)
        problems += more
    problems = [f"test file `{raw.source}`: {problem}" for problem in problems]
    return CheckedTable(features, codes, training.labels, problems)


def empty_columns(features: pd.DataFrame, rows: np.ndarray) -> list[str]:
    """Names the columns without a value in these rows ([N] int64), one line each."""
    gaps = {name: features[name].isna().to_numpy() for name in features}
    empty = [name for name, gap in gaps.items() if gap.sum() >= len(rows) and gap[rows].all()]
    return [all_missing(name) for name in empty]


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
            for piece in _content(name, table.features[name].array):
                digest.update(piece)
        digest.update(repr(table.labels).encode())
        digest.update(table.codes.tobytes())
    for rows in parts:
        digest.update(f"\n{len(rows)}\n".encode())
        digest.update(rows.tobytes())
    return digest.hexdigest()[:16]


def _without_target(frame: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    if target in frame:
        return frame.drop(columns=target), []
    return frame, [f"no column is called `{target}`, the target; {nearest(target, list(frame))}"]


def _column_problems(column: pd.Series) -> list[str]:
    name = str(column.name)
    if column.isna().all():
        return [all_missing(name)]
    try:
        if kind_of(name, column.array) == "numeric":
            as_numbers(name, column.array)
    except TableError as error:
        return error.problems
    return []


def _test_column_problems(column: pd.Series, training: pd.Series) -> list[str]:
    """Checks that what the training column taught can encode a test column; gaps are fine."""
    name = str(column.name)
    try:
        if kind_of(name, training.array) == "numeric":
            as_numbers(name, column.array)
        else:
            kind_of(name, column.array)
    except TableError as error:
        return error.problems
    return []


def _test_codes(column: pd.Series, labels: list[Label]) -> tuple[np.ndarray, list[str]]:
    codes, found = read_labels(column.array)
    problems = []
    missing = int((codes < 0).sum())
    if missing:
        problems.append(
            f"target `{column.name}` must have a value in every row, got none in {missing} of "
            f"{len(codes)} rows; fill or drop these rows"
        )
    places = {label: _place(label, labels) for label in found}
    unseen = [label for label, place in places.items() if place < 0]
    if unseen and labels:
        problems.append(
            f"target `{column.name}` must hold classes of the training table, {some_of(labels)}, "
            f"got {some_of(unseen)}; drop these rows or add such rows to the training table"
        )
    return np.array([*places.values(), -1], dtype=np.int64)[codes], problems


def _place(label: Label, labels: list[Label]) -> int:
    # A file that happens to hold only the numbers among text labels is read as numbers.
    for spelling in (label, level_text(label)):
        if spelling in labels:
            return labels.index(spelling)
    return -1


def _content(name: str, values: Any) -> list[bytes | memoryview]:
    if kind_of(name, values) == "numeric":
        return [(as_numbers(name, values) + 0.0).data]  # -0.0 and 0.0 are equal
    codes, texts = as_levels(name, values)
    levels = sorted(set(texts))
    places = {text: place for place, text in enumerate(levels)}
    ranks = np.array([*(places[text] for text in texts), -1], dtype=np.int64)
    return [repr(levels).encode(), ranks[codes].data]
