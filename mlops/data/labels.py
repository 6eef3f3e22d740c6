"""The target column: plain labels, codes, and what makes a target unusable."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pandas as pd

from mlops.data.columns import level_text, some_of

Label = str | int | bool | float

MANY_LABELS = 50
MANY_LABELS_SHARE = 0.05


def read_labels(values: Any) -> tuple[np.ndarray, list[Label]]:
    """Turns a target column into codes and sorted labels.

    Labels are plain JSON values: text stays text, booleans stay booleans, whole numbers are
    integers even where they were read as floats (`1.0` is class 1). Labels of several kinds become
    text.

    Args:
        values: The target column, as a pandas extension array: [N].

    Returns:
        codes: Positions in the labels, -1 where the target is missing: [N] int64.
        labels: The labels present, in order.
    """
    codes, uniques = pd.factorize(values)
    found = [_plain(unique) for unique in uniques]
    if len({_family(label) for label in found}) > 1:
        found = [level_text(label) for label in found]
    labels = sorted(set(found))
    places = {label: place for place, label in enumerate(labels)}
    # The last entry is where code -1, a missing target, points.
    return np.array([*(places[label] for label in found), -1], dtype=np.int64)[codes], labels


def target_problems(
    name: str, codes: np.ndarray, labels: list[Label], fewest_rows: int
) -> list[str]:
    """Checks that a target can be learned.

    Args:
        name: The target column.
        codes: [N] int64, -1 where the target is missing.
        labels: Their meaning.
        fewest_rows: Rows a class needs to appear in every part.

    Returns:
        One line for each problem.
    """
    problems = []
    missing = int((codes < 0).sum())
    if missing:
        gaps = "every row" if missing == len(codes) else f"{missing} of {len(codes)} rows"
        problems.append(
            f"target `{name}` must have a value in every row, got none in {gaps}; fill or drop "
            "these rows (in a CSV file texts such as NA, None and ? count as no value)"
        )
    infinite = [label for label in labels if isinstance(label, float) and not np.isfinite(label)]
    if infinite:
        problems.append(
            f"target `{name}` must hold finite labels, got {some_of(infinite)}; correct these rows"
        )
    if len(labels) == 1:
        problems.append(
            f"target `{name}` must have at least 2 classes, got only {labels[0]!r}; choose "
            "another target or add rows of other classes"
        )
    if _is_continuous(labels, len(codes)):
        problems.append(
            f"target `{name}` must hold classes, got {len(labels)} distinct numbers in "
            f"{len(codes)} rows; group the numbers into classes, or write them as text if each is "
            "a class"
        )
        return problems
    counts = np.bincount(codes[codes >= 0], minlength=len(labels))
    small = [f"{labels[i]!r} ({counts[i]})" for i in np.flatnonzero(counts < fewest_rows)]
    if small:
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        problems.append(
            f"each class of target `{name}` must have at least {fewest_rows} rows, one for each "
            f"part, got {', '.join(small[:5])}{more}; add rows, merge the class with another, or "
            "drop it"
        )
    return problems


def _is_continuous(labels: list[Label], n_rows: int) -> bool:
    """Tells a measured number from classes that are written as numbers.

    Fractions are seldom class names, so many of them are enough; whole numbers may be (product 1 to
    500), unless there is a new one every 20 rows.
    """
    if len(labels) <= MANY_LABELS or _family(labels[0]) != "number":
        return False
    fractions = any(isinstance(label, float) for label in labels)
    return fractions or len(labels) > MANY_LABELS_SHARE * n_rows


def _plain(value: Any) -> Label:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating, decimal.Decimal)):
        number = float(value)
        return int(number) if number.is_integer() else number
    return str(value)


def _family(label: Label) -> str:
    if isinstance(label, bool):
        return "boolean"
    return "text" if isinstance(label, str) else "number"
