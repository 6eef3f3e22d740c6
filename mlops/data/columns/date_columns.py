"""How columns of dates, and the differences between them, become numbers for the network.

    seconds since the first of training    standardized     1 output
    year                                   standardized     1
    month, day of the month, weekday, hour sine, cosine     2 each
    missing                                1 for a gap      1
    difference of two columns, seconds     standardized     1 a pair

Each is there only where it varies among the training rows, and `missing` only where these had gaps.
A gap is zero in all the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from mlops.data.cells.dates import DateFormat, as_times, is_date_gap
from mlops.data.columns.encoders import is_extreme
from mlops.data.columns.kinds import Kind, all_missing, texts_of, type_of
from mlops.data.columns.time_scales import Scale, _scale_from
from mlops.errors import TableError

CYCLES = ("month", "day", "weekday", "hour")
_SECOND, _DAY = 1_000_000, 86_400_000_000  # microseconds
_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class DateColumn:
    """A column of dates or times.

    Attributes:
        format: How texts write its dates.
        first: The earliest time of the training rows, extreme ones left out: microseconds since
            1970.
        last: The latest one.
        median: The middle one of all.
        seconds: How seconds since `first` are standardized; None where they do not vary.
        year: How years are.
        cycles: Which of `CYCLES` vary.
        missing: Whether there were gaps.
    """

    name: str
    format: DateFormat
    first: int
    last: int
    median: int
    seconds: Scale | None
    year: Scale | None
    cycles: tuple[str, ...]
    missing: bool
    kind: ClassVar[Kind] = "date"

    @classmethod
    def fit(cls, name: str, times: np.ndarray, form: DateFormat | None = None) -> DateColumn:
        """Learns which parts of its times vary, and how.

        Args:
            name: The column's name.
            times: Its times, NaT for a gap: [N] datetime64, naive, in UTC.
            form: How texts write them.

        Raises:
            TableError: Every cell is missing.
        """
        form = DateFormat() if form is None else form
        times = times.astype("datetime64[us]")
        known = times[~np.isnat(times)]
        if not len(known):
            raise TableError(all_missing(name))
        moments = known.astype(np.int64)
        usual = moments[~is_extreme(moments.astype(np.float64))]
        first, last = int(usual.min()), int(usual.max())
        median = int(np.sort(moments)[(len(moments) - 1) // 2])
        cycles = tuple(cycle for cycle in CYCLES if np.ptp(_part(known, cycle)) > 0.0)
        return cls(
            name,
            form,
            first,
            last,
            median,
            Scale.fit((moments - first) / _SECOND),
            Scale.fit(_year(known)),
            cycles,
            missing=len(known) < len(times),
        )

    @property
    def width(self) -> int:
        """Number of outputs."""
        scaled = (self.seconds is not None) + (self.year is not None)
        return scaled + 2 * len(self.cycles) + self.missing

    def read(self, values: Any) -> tuple[np.ndarray, np.ndarray]:
        """Reads a raw column, as `times_of` does."""
        return times_of(self.name, values, self.format)

    def write(self, times: np.ndarray, out: np.ndarray) -> None:
        """Encodes times ([N] datetime64, NaT for a gap) into `out`: [N, width] float32, zeros."""
        times = times.astype("datetime64[us]")
        gaps = np.isnat(times)
        rows = np.flatnonzero(~gaps)
        known = times[rows]
        at = 0
        if self.seconds is not None:
            out[rows, at] = self.seconds((known.astype(np.int64) - self.first) / _SECOND)
            at += 1
        if self.year is not None:
            out[rows, at] = self.year(_year(known))
            at += 1
        for cycle in self.cycles:
            angle = 2.0 * np.pi * _part(known, cycle)
            out[rows, at], out[rows, at + 1] = np.sin(angle), np.cos(angle)
            at += 2
        if self.missing:
            out[gaps, at] = 1.0

    def outside(self, times: np.ndarray) -> int:
        """Counts the times that are farther outside of those of training than these are apart."""
        times = times.astype("datetime64[us]")
        moments = times[~np.isnat(times)].astype(np.int64)
        margin = max(self.last - self.first, _DAY)
        far = (moments < self.first - margin) | (moments > self.last + margin)
        return int(far.sum())

    def to_json(self) -> dict[str, Any]:
        """Returns the whole state as JSON values."""
        return {"kind": self.kind, **asdict(self), "cycles": list(self.cycles)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> DateColumn:
        """Rebuilds a column from `to_json`'s value."""
        fields = {key: value for key, value in state.items() if key != "kind"}
        return cls(
            **{
                **fields,
                "format": DateFormat.from_json(state["format"]),
                "seconds": _scale_from(state["seconds"]),
                "year": _scale_from(state["year"]),
                "cycles": tuple(state["cycles"]),
            }
        )


def _year(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[Y]").astype(np.int64).astype(np.float64)


def _part(times: np.ndarray, cycle: str) -> np.ndarray:
    """Returns how much of a cycle has passed: [N] float64 in [0, 1)."""
    days = times.astype("datetime64[D]")
    if cycle == "hour":  # with its minutes
        return np.asarray((times - days).astype(np.int64) / _DAY)
    if cycle == "weekday":
        return np.asarray((days.astype(np.int64) + 3) % 7 / 7.0)
    months = days.astype("datetime64[M]")
    if cycle == "month":
        return np.asarray(months.astype(np.int64) % 12 / 12.0)
    return np.asarray((days - months.astype("datetime64[D]")).astype(np.int64) / 31.0)


def times_of(name: str, values: Any, form: DateFormat) -> tuple[np.ndarray, np.ndarray]:
    """Reads a raw column of any type as times.

    Args:
        name: The column's name, for the error.
        values: A pandas array or an array of objects: [N].
        form: How its texts write dates.

    Returns:
        The times, NaT for a gap and for what is no date: [N] datetime64[us]; and the positions of
        the latter: [M] int64.

    Raises:
        TableError: Its cells are no single values.
    """
    if type_of(name, values) == "time":
        times = as_times(values)
        return times, np.flatnonzero(np.isnat(times) & ~np.asarray(pd.isna(values)))
    codes, texts = texts_of(name, values)
    read = form.read(texts)
    is_odd = np.isnat(read) & ~np.array([is_date_gap(text) for text in texts], dtype=bool)
    times = np.append(read, np.datetime64("NaT"))[codes]
    return times, np.flatnonzero(np.append(is_odd, False)[codes])


def describe(times: np.ndarray) -> dict[str, Any]:
    """Describes the times of a column, of which some are known, for people: JSON values.

    Args:
        times: NaT for a gap: [N] datetime64.
    """
    times = times.astype("datetime64[us]")
    known = np.sort(times[~np.isnat(times)])
    whole = bool((known == known.astype("datetime64[D]")).all())
    typical = known[(len(known) - 1) // 2]
    return {
        "kind": "date",
        "min": iso_text(known[0], whole_day=whole),
        "max": iso_text(known[-1], whole_day=whole),
        "typical": iso_text(typical, whole_day=whole),
        "gaps": len(known) < len(times),
        "whole_days": whole,
    }


def iso_text(time: np.datetime64 | int, *, whole_day: bool = False) -> str:
    """Writes a time, or microseconds since 1970, by ISO 8601."""
    if isinstance(time, np.datetime64):
        time = int(time.astype("datetime64[us]").astype(np.int64))
    moment = _EPOCH + timedelta(microseconds=time)
    return moment.date().isoformat() if whole_day else moment.isoformat()
