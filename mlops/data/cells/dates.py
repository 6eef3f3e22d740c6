"""How a column writes dates, and how its cells are read: one text, one time, whoever asks.

Times are naive, in UTC: what has an offset is converted, what has none is taken as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from mlops.data.cells.spelling import is_gap, tidy

ISO = "iso"
UNIT = "datetime64[us]"
FINER = ("ns", "ps", "fs", "as")
NOT_A_TIME = np.datetime64("NaT", "us")
_FIRST, _END = np.datetime64("0001-01-01", "us"), np.datetime64("10000-01-01", "us")
# Two digits of a year are of 1969 to 2068, as for C's and Python's strptime.
_PIVOT = 69
LONGEST = 64
_MONTHS = {
    name: month
    for month, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_FULL_NAMES = (
    "january|february|march|april|may|june|july|august|september|october|november|december"
)
_MONTH = rf"(?P<month>{_FULL_NAMES}|{'|'.join(_MONTHS)}|sept)\.?"
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}\.?,?\s+)?"
_TIME = (
    r"(?:(?:t|,?\s+)(?P<hour>[0-9]{1,2}):(?P<minute>[0-5][0-9])"
    r"(?::(?P<second>[0-5][0-9])(?:[.,](?P<fraction>[0-9]{1,12}))?)?"
    r"(?:\s*(?P<half>[ap])\.?m\.?)?"
    r"(?:\s*(?P<zone>z|utc|gmt|[+\-\u2212][0-9]{2}(?::?[0-5][0-9])?))?)?"
)
# As most programs write it; needs no second look but for the number of days in the month.
PLAIN = re.compile(
    r"(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.(?:[0-9]{3}){1,2})?)?)?"
)
# 1.2.10 and 2024.1.2 are versions: where a point, or beside `-` a short year, makes a
# text less surely a date, days and months have two digits.
YEAR_FIRST = re.compile(
    r"(?P<year>[0-9]{4})(?:(?P<mark>[/\-])(?P<month>[0-9]{1,2})(?P=mark)(?P<day>[0-9]{1,2})"
    r"|\.(?P<month2>[0-9]{2})\.(?P<day2>[0-9]{2}))" + _TIME,
    re.IGNORECASE,
)
YEAR_LAST = re.compile(
    r"(?P<one>[0-9]{1,2})(?P<mark>[/.\-])(?P<two>[0-9]{1,2})(?P=mark)(?P<year>[0-9]{4})" + _TIME,
    re.IGNORECASE,
)
SHORT_YEAR = re.compile(
    r"(?:(?P<one>[0-9]{1,2})/(?P<two>[0-9]{1,2})/"
    r"|(?P<one2>[0-9]{2})(?P<mark>[.\-])(?P<two2>[0-9]{2})(?P=mark))(?P<year>[0-9]{2})" + _TIME,
    re.IGNORECASE,
)
_YEAR = r"(?P<year>[0-9]{4}|[0-9]{2})"
DAY_NAMED = re.compile(
    _WEEKDAY
    + rf"(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?[\s\-/.]{{0,2}}{_MONTH}[\s\-/,]{{0,2}}{_YEAR}{_TIME}",
    re.IGNORECASE,
)
NAMED_DAY = re.compile(
    _WEEKDAY + rf"{_MONTH}[\s\-]{{0,2}}(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?"
    rf"(?:,\s*|[\s\-]+){_YEAR}{_TIME}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class DateFormat:
    """How dates are written in a column. ISO 8601 is always read beside.

    Attributes:
        form: `iso`, or a `strptime` pattern that most dates have. It says the order of day and
            month: any of `/`, `.` and `-` may separate them, the year may have two digits or four,
            a time may follow.
    """

    form: str = ISO

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """Reads texts.

        Returns:
            NaT for a gap and for what is no date: [N] datetime64[us].
        """
        read = [self._plain(text) for text in texts]
        plain = [None if found is None else found[0] for found in read]
        times = pd.to_datetime(
            pd.Series(plain, dtype=object), format="ISO8601", errors="coerce"
        ).to_numpy(dtype=UNIT)
        minutes = np.array([0 if found is None else found[1] for found in read], dtype=np.int64)
        return _in_range(times - minutes.astype("timedelta64[m]"))

    def read_one(self, text: str) -> np.datetime64:
        """Reads a text as `read` does."""
        found = self._plain(text)
        if found is None:
            return NOT_A_TIME
        try:
            time = np.datetime64(datetime.fromisoformat(found[0]), "us")
        except ValueError:  # no such day in the month
            return NOT_A_TIME
        if not found[1]:
            return time
        time -= np.timedelta64(found[1], "m")
        return time if _FIRST <= time < _END else NOT_A_TIME

    def _plain(self, text: str) -> tuple[str, int] | None:
        """Returns a text's local time as plain ISO 8601, and its offset from UTC in minutes."""
        text = tidy(text)
        if PLAIN.fullmatch(text):
            return text, 0
        if not 6 <= len(text) <= LONGEST:
            return None
        match = YEAR_FIRST.fullmatch(text)
        if match is not None:
            month, day = match["month"] or match["month2"], match["day"] or match["day2"]
            return _written(match, int(match["year"]), month, day)
        if self.form == ISO:
            return None
        if "%b" in self.form:
            match = DAY_NAMED.fullmatch(text) or NAMED_DAY.fullmatch(text)
            if match is None:
                return None
            return _written(
                match, _year(match["year"]), _MONTHS[match["month"][:3].lower()], match["day"]
            )
        match = YEAR_LAST.fullmatch(text) or SHORT_YEAR.fullmatch(text)
        if match is None:
            return None
        parts = match.groupdict()
        one, two = parts["one"] or parts["one2"], parts["two"] or parts["two2"]
        if self.form.startswith("%y"):
            if len(match["year"]) == 4:
                return None
            return _written(match, _year(one), two, match["year"])
        month, day = (two, one) if self.form.startswith("%d") else (one, two)
        return _written(match, _year(match["year"]), month, day)

    def with_first(self, part: str) -> DateFormat:
        """Returns the format with `day` or `month` first, where both come before the year."""
        if not self.form.startswith(("%d", "%m")) or "%m" not in self.form:
            return self
        mark, year = self.form[2], self.form[-2:]
        order = ("%d", "%m") if part == "day" else ("%m", "%d")
        return DateFormat(mark.join((*order, year)))

    def told(self) -> str:
        """Says in words how dates are written."""
        if self.form == ISO:
            return "year-month-day"
        words = {"d": "day", "m": "month", "b": "month", "Y": "year", "y": "year"}
        return re.sub("%([dmbYy])", lambda match: words[match[1]], self.form)

    def to_json(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> DateFormat:
        """Rebuilds a format from `to_json`'s value."""
        return cls(state["form"])


ISO_DATES = DateFormat()


def _year(digits: str) -> int:
    year = int(digits)
    if len(digits) == 4:
        return year
    return year + (1900 if year >= _PIVOT else 2000)


def _written(
    match: re.Match[str], year: int, month: int | str, day: int | str
) -> tuple[str, int] | None:
    month, day = int(month), int(day)
    if not (year and 1 <= month <= 12 and 1 <= day <= 31):
        return None
    written = f"{year:04}-{month:02}-{day:02}"
    if match["hour"] is None:
        return written, 0
    hour, half = int(match["hour"]), match["half"]
    if half is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half in "pP" else 0)
    if hour > 23:
        return None
    fraction = (match["fraction"] or "")[:6].ljust(6, "0")
    written += f"T{hour:02}:{match['minute']}:{match['second'] or '00'}.{fraction}"
    zone = match["zone"]
    if zone is None or zone[0] not in "+-\u2212":
        return written, 0
    minutes = int(zone[1:3]) * 60 + int(zone[3:].lstrip(":") or 0)
    return written, minutes if zone[0] == "+" else -minutes


def _in_range(times: np.ndarray) -> np.ndarray:
    """Leaves out what is not in the years 1 to 9999, and returns microseconds."""
    if np.datetime_data(times.dtype)[0] in FINER:
        times = times.astype(UNIT)  # they do not reach so far, and numpy compares the finer units
    outside = (times < _FIRST) | (times >= _END)
    if outside.any():
        times = np.where(outside, np.datetime64("NaT"), times)
    return np.asarray(times.astype(UNIT))


def is_date_gap(text: str) -> bool:
    """Tells whether a text among dates stands for no value."""
    return is_gap(text) or text == "NaT"


def as_times(values: Any) -> np.ndarray:
    """Returns typed times: naive, in UTC.

    Args:
        values: A pandas array of times of any unit and zone, or an array of objects: dates, times
            of a day, gaps. What is no time counts as a gap.

    Returns:
        NaT for a gap, and for what is not in the years 1 to 9999: [N] datetime64[us].
    """
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = pd.DatetimeIndex(values).tz_convert("UTC").tz_localize(None)
    if values.dtype.kind == "M" and isinstance(values.dtype, np.dtype):
        return _in_range(np.asarray(values))
    return _in_range(np.array([_time_of(cell) for cell in cells_of(values)], dtype=UNIT))


def cells_of(values: Any) -> list[Any]:
    """Returns the cells of a column as Python has them."""
    return list(np.asarray(values, dtype=object))


def _time_of(cell: Any) -> Any:
    if isinstance(cell, datetime) and not pd.isna(cell):
        offset = cell.utcoffset()
        naive: Any = cell.replace(tzinfo=None)
        time = np.datetime64(naive.asm8 if isinstance(naive, pd.Timestamp) else naive, "us")
        return time if offset is None else time - np.timedelta64(offset)
    if isinstance(cell, (date, np.datetime64)) and not pd.isna(cell):
        day: Any = cell
        return np.datetime64(day, "us")
    return NOT_A_TIME
