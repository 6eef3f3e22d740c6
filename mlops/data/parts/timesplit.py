"""A split by time: the model is judged by later rows than it has learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

from mlops.data.notes import Note
from mlops.errors import TableError


def split_by_time(
    time: pd.Series,
    used: np.ndarray,
    fractions: Sequence[float],
    line_of: Callable[[int], int | None],
) -> tuple[np.ndarray, list[Note]]:
    """Makes the latest rows the last part, those before them the part before.

    Rows of the same time are in one part, so the parts' sizes are as near to what was asked for as
    times allow. Rows without a time are training rows. Unlike a split by hash, rows that are added
    later move the parts on.

    Args:
        time: Numbers or dates: [N].
        used: The rows that are to be split: [M] int64.
        fractions: Shares of all parts but the first, in the order of time.
        line_of: Tells the line, for people, of a row.

    Returns:
        part_of: The part of each of these rows: [M] int64.
        notes: What was decided.

    Raises:
        TableError: The column has neither numbers nor dates, or too few different ones.
    """
    name = str(time.name)
    values = _instants(time)[used]
    gaps = np.isnan(values) if values.dtype.kind == "f" else np.isnat(values)
    order = np.flatnonzero(~gaps)[np.argsort(values[~gaps], kind="stable")]
    ordered = values[order]
    steps = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    if len(steps) < len(fractions):
        raise TableError(
            f"`data.time` must name a column of at least {len(fractions) + 1} different times, one "
            f"for each part, got {len(steps) + bool(len(order))} in `{name}`; name another column"
        )
    part_of = np.zeros(len(used), dtype=np.int64)
    wanted, first_of_part = float(len(order)), len(steps)
    for part in range(len(fractions), 0, -1):
        # Some step is left for each part before.
        wanted -= len(used) * fractions[part - 1]
        reachable = steps[part - 1 : first_of_part]
        first_of_part = part - 1 + int(np.abs(reachable - wanted).argmin())
        rows = order[steps[first_of_part] :]
        part_of[rows[part_of[rows] == 0]] = part
    sizes = np.bincount(part_of, minlength=len(fractions) + 1)
    told = " and ".join(f"{size:,}" for size in sizes[1:])
    which = "validation and test" if len(fractions) > 1 else "validation"
    text = f"{which} rows are the latest, {told}"
    notes = [Note("time_split", text, column=name, cells=len(used), wished=True)]
    if gaps.any():
        n_gaps, line = int(gaps.sum()), line_of(int(used[gaps][0]))
        text = f"{n_gaps:,} row(s) without a time are training rows"
        notes.append(Note("time_gaps", text, column=name, cells=n_gaps, line=line))
    return part_of, notes


def _instants(time: pd.Series) -> np.ndarray:
    """Returns times that can be put in order: [N] float64, or dates of NumPy."""
    if is_datetime64_any_dtype(time.dtype):
        return time.to_numpy(dtype="datetime64[us]")
    if is_numeric_dtype(time.dtype) and not is_bool_dtype(time.dtype):
        return np.asarray(time.array.to_numpy(dtype=np.float64, na_value=np.nan))
    raise TableError(
        f"`data.time` must name a column of dates or numbers, got `{time.name}` of neither; name "
        "another column, or write its dates as 2026-11-28"
    )
