"""Durations, and times of a day, as seconds: of typed cells and of texts alike."""

from __future__ import annotations

import re
from datetime import time, timedelta
from typing import Any

import numpy as np
import pandas as pd

from mlops.data.cells.dates import FINER, cells_of, is_date_gap
from mlops.data.cells.spelling import tidy


def as_seconds(values: Any) -> np.ndarray:
    """Returns typed durations, and times of a day since midnight, in seconds.

    Args:
        values: A pandas array of durations of any unit, or an array of objects.

    Returns:
        NaN for a gap and for what is no duration: [N] float64.
    """
    if values.dtype.kind == "m" and isinstance(values.dtype, np.dtype):
        durations = np.asarray(values)
        if np.datetime_data(durations.dtype)[0] in FINER:
            durations = durations.astype("timedelta64[us]")
        return np.asarray(durations / np.timedelta64(1, "s"))
    return np.array([_seconds_of(cell) for cell in cells_of(values)], dtype=np.float64)


def _seconds_of(cell: Any) -> float:
    if isinstance(cell, time):
        minutes = cell.hour * 60 + cell.minute
        return ((minutes * 60 + cell.second) * 1_000_000 + cell.microsecond) / 1e6
    if not isinstance(cell, (timedelta, np.timedelta64)) or pd.isna(cell):
        return np.nan
    if not isinstance(cell, (pd.Timedelta, np.timedelta64)):  # may be longer than these
        return cell // timedelta(microseconds=1) / 1e6
    return float(as_seconds(np.array([pd.Timedelta(cell).asm8]))[0])


_CLOCK = r"([+\-]?)([0-9]{1,9}):([0-5][0-9])(?::([0-5][0-9])(?:\.([0-9]{1,12}))?)?"
_DURATION = re.compile(rf"(?:([+\-]?[0-9]{{1,9}}) days?(?:,? +{_CLOCK})?|{_CLOCK})", re.IGNORECASE)


def read_duration(text: str) -> float | None:
    """Reads a duration, or a time of a day: seconds, NaN for a gap, None where it is neither.

    `0 days 01:02:03`, `-1 days +23:00:00`, `1 day, 1:02:03`, `01:02:03.5` and `14:30` (hours and
    minutes) are durations.
    """
    text = tidy(text)
    match = _DURATION.fullmatch(text)
    if match is None:
        return np.nan if is_date_gap(text) else None
    days, *parts = match.groups()
    sign, hours, minutes, seconds, fraction = parts[:5] if days is not None else parts[5:]
    clock = (int(hours or 0) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)
    micros = clock * 1_000_000 + int((fraction or "0")[:6].ljust(6, "0"))
    return (int(days or 0) * 86_400_000_000 + (-micros if sign == "-" else micros)) / 1e6
