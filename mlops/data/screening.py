"""Columns that a study is better off without, and those that know too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlops.data.columns.encoders import is_extreme
from mlops.data.columns.reading import ReadColumn
from mlops.data.notes import Note
from mlops.settings.wishes import Wish, wish_for

# In smaller tables all cells of an honest column may differ.
FEWEST_ROWS = 50
# A column of levels of which so many rows have one of their own names rows, or is text.
DISTINCT_SHARE = 0.9
FREE_TEXT_LENGTH = 30
# One column that tells so many rows' targets, by one level or interval a class.
GIVES_AWAY = 0.999
LOOKED_AT = 5_000
KEEP = "keep it with --data.keep"


def left_out(column: ReadColumn) -> Note | None:
    """Says why a column is left out; None for one that is not."""
    name, values = column.reading.name, column.values
    n_rows = len(values)
    if isinstance(values, pd.Categorical):
        counts = np.bincount(values.codes[values.codes >= 0], minlength=len(values.categories))
        if not counts.any():
            return Note("empty_column", "no value in any row, left out", column=name)
        if (counts > 0).sum() == 1 and counts.max() == n_rows:
            return Note("constant_column", "the same in every row, left out", column=name)
        return _identifier(name, values, counts)
    gaps = {"f": np.isnan, "M": np.isnat}.get(values.dtype.kind)
    known = values if gaps is None else values[~gaps(values)]
    if len(known) == 0:
        return Note("empty_column", "no value in any row, left out", column=name)
    if len(known) == n_rows and known.min() == known.max():
        return Note("constant_column", "the same in every row, left out", column=name)
    is_number = values.dtype.kind != "M"
    if is_number and n_rows >= FEWEST_ROWS and len(known) == n_rows and _counts_rows(known):
        return Note("row_number", f"the number of the row, left out; {KEEP} {name}", column=name)
    return None


def _identifier(name: str, values: pd.Categorical, counts: np.ndarray) -> Note | None:
    n_known = int(counts.sum())
    n_levels = int((counts > 0).sum())
    if n_known < FEWEST_ROWS or n_levels < DISTINCT_SHARE * n_known:
        return None
    present = np.flatnonzero(counts)
    length = float(np.mean([len(str(values.categories[i])) for i in present[:1000]]))
    what = "free text" if length > FREE_TEXT_LENGTH else "an identifier"
    told = f"{what}, {n_levels:,} different texts in {n_known:,} rows, left out; {KEEP} {name}"
    return Note("free_text" if what == "free text" else "identifier", told, column=name)


def _counts_rows(numbers: np.ndarray) -> bool:
    if numbers[1] - numbers[0] != 1 or numbers[-1] - numbers[0] != len(numbers) - 1:
        return False
    return bool((np.diff(numbers) == 1).all())


def _extreme(column: ReadColumn) -> list[Note]:
    """Tells of numbers that are not of the others' scale."""
    values = column.values
    if isinstance(values, pd.Categorical) or values.dtype.kind not in "iuf":
        return []
    some = values[:: max(1, len(values) // LOOKED_AT)]
    some = some[~np.isnan(some)]
    # Of a large column the ends tell whether there is anything to look for.
    ends = np.array([np.fmin.reduce(values), np.fmax.reduce(values)], dtype=np.float64)
    if not is_extreme(np.append(some.astype(np.float64), ends))[-2:].any():
        return []
    known = values[~np.isnan(values)].astype(np.float64)
    count = int(is_extreme(known).sum())
    if not count:
        return []
    told = (
        f"{count:,} number(s) are far from the others' scale, and held to their range; if they "
        "stand for no value, leave these cells empty"
    )
    return [Note("extreme_numbers", told, column=column.reading.name, cells=count)]


def giving_away(column: ReadColumn, codes: np.ndarray) -> Note | None:
    """Warns of a column by which alone the target can be told.

    Args:
        column: The column.
        codes: The target of its rows, -1 for none: [N] int64.
    """
    chosen = np.flatnonzero(codes >= 0)
    if len(chosen) < FEWEST_ROWS:
        return None
    if len(chosen) > LOOKED_AT:  # of a large table some rows tell that it is not so
        some = chosen[:: len(chosen) // LOOKED_AT]
        if _told_by(column, some, codes[some]) is None:
            return None
    right = _told_by(column, chosen, codes[chosen])
    if right is None:
        return None
    return Note(
        "gives_away",
        f"this column alone tells the target of {right:,} of {len(chosen):,} rows; if it is not "
        f"known when predictions are made, leave it out (--data.drop {column.reading.name})",
        column=column.reading.name,
        cells=right,
        warning=True,
    )


def _told_by(column: ReadColumn, rows: np.ndarray, codes: np.ndarray) -> int | None:
    """Counts the rows whose target a column tells; None where these are not nearly all."""
    values = column.values
    is_levels = isinstance(values, pd.Categorical)
    places = values.codes[rows] if is_levels else _intervals(np.asarray(values)[rows], codes)
    if places is None:
        return None
    n_classes = int(codes.max()) + 1
    _, groups = np.unique(places, return_inverse=True)
    n_groups = int(groups.max()) + 1
    if n_groups > max(2 * n_classes, len(rows) / 20):
        return None
    counts = np.bincount(groups * n_classes + codes, minlength=n_groups * n_classes)
    right = int(counts.reshape(n_groups, n_classes).max(axis=1).sum())
    if right < GIVES_AWAY * len(rows) or np.bincount(codes).max() >= GIVES_AWAY * len(rows):
        return None
    return right


def _intervals(numbers: np.ndarray, codes: np.ndarray) -> np.ndarray | None:
    """Cuts numbers where the target changes, if that is hardly more often than there are classes.

    Returns:
        The interval of each number, gaps in one of their own: [N] int64; None for too many.
    """
    if numbers.dtype.kind == "M":
        numbers = np.where(np.isnat(numbers), np.nan, numbers.astype(np.int64))
    order = np.argsort(numbers, kind="stable")  # gaps last
    changes = np.diff(codes[order]) != 0
    n_classes = int(codes.max()) + 1
    if changes.sum() > 2 * n_classes + (1 - GIVES_AWAY) * 2 * len(numbers):
        return None
    cuts = np.concatenate([[False], changes & (np.diff(numbers[order]) != 0)])
    intervals = np.empty(len(numbers), dtype=np.int64)
    intervals[order] = np.cumsum(cuts)
    return intervals


def screen(
    columns: Sequence[ReadColumn], codes: np.ndarray, wishes: Mapping[str, Wish]
) -> tuple[list[ReadColumn], list[Note]]:
    """Chooses the columns to learn from.

    Args:
        columns: The columns that have been read.
        codes: The target of their rows, -1 for none: [N] int64.
        wishes: What the user says of columns; what is named there is not left out.

    Returns:
        The columns to learn from, and what is to be told.
    """
    kept, notes = [], []
    for column in columns:
        note = left_out(column)
        wish = wish_for(column.reading.name, wishes)
        hopeless = note is not None and note.code == "empty_column"
        if note is not None and (wish is None or hopeless):
            away = giving_away(column, codes) if note.code == "row_number" else None
            if away is not None:
                told = "the rows are sorted by the target, and their number tells it; left out"
                note = Note("row_number", told, column=note.column, warning=True)
            notes.append(note)
            continue
        kept.append(column)
        notes += [*column.notes, *_extreme(column)]
        if (away := giving_away(column, codes)) is not None:
            notes.append(away)
    return kept, notes
