"""How a column writes dates, and how its cells are read: one text, one time, whoever asks.

Times are naive, in UTC: what has an offset is converted, what has none is taken as it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from datetime import time as clock_time
from typing import Any

import numpy as np
import pandas as pd

from mlops.data.spelling import is_gap, tidy

ISO = "iso"
# A column holds dates if at least this share of its cells, gaps aside, are.
LEAST_DATES = 0.95
UNIT = "datetime64[us]"
NOT_A_TIME = np.datetime64("NaT", "us")
_FIRST, _END = np.datetime64("0001-01-01", "us"), np.datetime64("10000-01-01", "us")
# Two digits of a year are of 1969 to 2068, as for C's and Python's strptime.
_PIVOT = 69
_LONGEST = 64
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
_PLAIN = re.compile(
    r"(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.(?:[0-9]{3}){1,2})?)?)?"
)
# The groups 1.2.10 and 2024.1.2 are versions: where a point, or without it a short year, makes a
# text less surely a date, days and months have two digits.
_YEAR_FIRST = re.compile(
    r"(?P<year>[0-9]{4})(?:(?P<mark>[/\-])(?P<month>[0-9]{1,2})(?P=mark)(?P<day>[0-9]{1,2})"
    r"|\.(?P<month2>[0-9]{2})\.(?P<day2>[0-9]{2}))" + _TIME,
    re.IGNORECASE,
)
_YEAR_LAST = re.compile(
    r"(?P<one>[0-9]{1,2})(?P<mark>[/.\-])(?P<two>[0-9]{1,2})(?P=mark)(?P<year>[0-9]{4})" + _TIME,
    re.IGNORECASE,
)
_SHORT_YEAR = re.compile(
    r"(?:(?P<one>[0-9]{1,2})/(?P<two>[0-9]{1,2})/"
    r"|(?P<one2>[0-9]{2})(?P<mark>[.\-])(?P<two2>[0-9]{2})(?P=mark))(?P<year>[0-9]{2})" + _TIME,
    re.IGNORECASE,
)
_YEAR = r"(?P<year>[0-9]{4}|[0-9]{2})"
_DAY_NAMED = re.compile(
    _WEEKDAY
    + rf"(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?[\s\-/.]{{0,2}}{_MONTH}[\s\-/,]{{0,2}}{_YEAR}{_TIME}",
    re.IGNORECASE,
)
_NAMED_DAY = re.compile(
    _WEEKDAY + rf"{_MONTH}[\s\-]{{0,2}}(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?"
    rf"(?:,\s*|[\s\-]+){_YEAR}{_TIME}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class DateFormat:
    """How dates are written in a column. ISO 8601 is always read beside.

    Attributes:
        form: `iso`, or a `strptime` pattern of the date. It says the order of day, month and year
            and how long the year is; any of `/`, `.` and `-` may separate them, a time may follow.
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
        time -= np.timedelta64(found[1], "m")
        return time if _FIRST <= time < _END else NOT_A_TIME

    def _plain(self, text: str) -> tuple[str, int] | None:
        """Returns a text's local time as plain ISO 8601, and its offset from UTC in minutes."""
        text = tidy(text)
        if _PLAIN.fullmatch(text):
            return text, 0
        if not 6 <= len(text) <= _LONGEST:
            return None
        match = _YEAR_FIRST.fullmatch(text)
        if match is not None:
            month, day = match["month"] or match["month2"], match["day"] or match["day2"]
            return _written(match, int(match["year"]), int(month), int(day))
        if self.form == ISO:
            return None
        pattern, first = _FORMS.get(self.form, (None, ""))
        match = None if pattern is None else pattern.fullmatch(text)
        if match is None or (len(match["year"]) == 2) != self.form.endswith("%y"):
            return None
        year = int(match["year"])
        if len(match["year"]) == 2:
            year += 1900 if year >= _PIVOT else 2000
        if first == "name":
            return _written(match, year, _MONTHS[match["month"][:3].lower()], int(match["day"]))
        parts = match.groupdict()
        one, two = int(parts["one"] or parts["one2"]), int(parts["two"] or parts["two2"])
        return _written(match, year, *((two, one) if first == "day" else (one, two)))

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


def _forms() -> dict[str, tuple[re.Pattern[str], str]]:
    forms: dict[str, tuple[re.Pattern[str], str]] = {}
    for year, pattern in (("%Y", _YEAR_LAST), ("%y", _SHORT_YEAR)):
        for mark in "/.-":
            forms[mark.join(("%d", "%m", year))] = pattern, "day"
            forms[mark.join(("%m", "%d", year))] = pattern, "month"
        forms[f"%d %b {year}"] = _DAY_NAMED, "name"
        forms[f"%b %d {year}"] = _NAMED_DAY, "name"
    return forms


def _written(match: re.Match[str], year: int, month: int, day: int) -> tuple[str, int] | None:
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
    if np.datetime_data(times.dtype)[0] in ("ns", "ps", "fs", "as"):
        times = times.astype(UNIT)  # they do not reach so far, and numpy compares the finer units
    outside = (times < _FIRST) | (times >= _END)
    if outside.any():
        times = np.where(outside, np.datetime64("NaT"), times)
    return np.asarray(times.astype(UNIT))


_FORMS = _forms()


def is_date_gap(text: str) -> bool:
    """Tells whether a text among dates stands for no value."""
    return is_gap(text) or text == "NaT"


@dataclass(frozen=True)
class FoundDates:
    """How the texts of a column are dates.

    Attributes:
        format: How they are written.
        dates: How many rows hold a date.
        odd: The texts that are neither date nor gap, with their rows.
        guessed: Whether it was guessed which of day and month comes first.
    """

    format: DateFormat
    dates: int
    odd: dict[str, int]
    guessed: bool = False

    @property
    def n_odd(self) -> int:
        """How many rows are neither date nor gap."""
        return sum(self.odd.values())


def find_dates(counts: Mapping[str, int]) -> FoundDates | None:
    """Finds how texts write dates; None where too few do.

    Which of day and month comes first is told by any part above 12. Where none is, it is a guess:
    the day where points separate them, else the month.

    Args:
        counts: The rows of each distinct text.
    """
    cells = {text: rows for text, rows in counts.items() if not is_date_gap(text)}
    total = sum(cells.values())
    shapes: Counter[str] = Counter()
    for text, rows in cells.items():
        shapes[_shape(tidy(text))] += rows
    if not total or total - shapes.pop("", 0) < LEAST_DATES * total:
        return None
    forms = [form for shape, _ in shapes.most_common() for form in _candidates(shape)]
    found = [_found(DateFormat(form), cells) for form in forms]
    best = max(found, key=lambda one: one.dates)  # the first of equal ones
    if not best.dates or best.dates < LEAST_DATES * total:
        return None
    pattern, _ = _FORMS.get(best.format.form, (None, ""))
    others = [
        one
        for one in found
        if pattern in (_YEAR_LAST, _SHORT_YEAR)
        and one.format.form == _turned(best.format.form)
        and one.dates == best.dates
    ]
    return FoundDates(best.format, best.dates, best.odd, guessed=bool(others))


def _shape(text: str) -> str:
    """Returns the likelier form of what may be a date; empty where it may be none."""
    if not 6 <= len(text) <= _LONGEST:
        return ""
    if _PLAIN.fullmatch(text) or _YEAR_FIRST.fullmatch(text):
        return ISO
    for pattern, year in ((_YEAR_LAST, "%Y"), (_SHORT_YEAR, "%y")):
        match = pattern.fullmatch(text)
        if match is not None:
            mark = match["mark"] or "/"
            return mark.join(("%d", "%m", year) if mark == "." else ("%m", "%d", year))
    for pattern, form in ((_DAY_NAMED, "%d %b "), (_NAMED_DAY, "%b %d ")):
        match = pattern.fullmatch(text)
        if match is not None:
            return form + ("%Y" if len(match["year"]) == 4 else "%y")
    return ""


def _candidates(shape: str) -> list[str]:
    return [shape, _turned(shape)] if "%m" in shape else [shape]


def _turned(form: str) -> str:
    """Exchanges day and month."""
    return form.replace("%d", "%_").replace("%m", "%d").replace("%_", "%m")


def _found(form: DateFormat, cells: Mapping[str, int]) -> FoundDates:
    texts = list(cells)
    is_odd = np.isnat(form.read(texts)).tolist()
    odd = {text: cells[text] for text, is_one in zip(texts, is_odd, strict=True) if is_one}
    return FoundDates(form, sum(cells.values()) - sum(odd.values()), odd)


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
    return _in_range(np.array([_time_of(cell) for cell in _cells(values)], dtype=UNIT))


def _cells(values: Any) -> list[Any]:
    return list(np.asarray(values, dtype=object))


def _time_of(cell: Any) -> np.datetime64:
    if isinstance(cell, datetime) and not pd.isna(cell):
        offset = cell.utcoffset()
        naive = cell.replace(tzinfo=None)
        time = np.datetime64(naive.asm8 if isinstance(naive, pd.Timestamp) else naive, "us")
        return time if offset is None else time - np.timedelta64(offset)
    if isinstance(cell, (date, np.datetime64)) and not pd.isna(cell):
        return np.datetime64(cell, "us")
    return NOT_A_TIME


def as_seconds(values: Any) -> np.ndarray:
    """Returns typed durations, and times of a day since midnight, in seconds.

    Args:
        values: A pandas array of durations of any unit, or an array of objects.

    Returns:
        NaN for a gap and for what is no duration: [N] float64.
    """
    if values.dtype.kind == "m" and isinstance(values.dtype, np.dtype):
        return np.asarray(np.asarray(values) / np.timedelta64(1, "s"))
    return np.array([_seconds_of(cell) for cell in _cells(values)], dtype=np.float64)


def _seconds_of(cell: Any) -> float:
    if isinstance(cell, clock_time):
        return cell.hour * 3600.0 + cell.minute * 60.0 + cell.second + cell.microsecond / 1e6
    if cell is None or cell is pd.NaT or cell is pd.NA or isinstance(cell, (str, float)):
        return np.nan
    try:
        return float(pd.Timedelta(cell) / np.timedelta64(1, "s"))
    except (ValueError, TypeError):
        return np.nan


_CLOCK = r"([+\-]?)([0-9]{1,9}):([0-5][0-9])(?::([0-5][0-9](?:\.[0-9]{1,12})?))?"
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
    sign, hours, minutes, seconds = parts[:4] if days is not None else parts[4:]
    clock = int(hours or 0) * 3600.0 + int(minutes or 0) * 60.0 + float(seconds or 0.0)
    return int(days or 0) * 86400.0 + (-clock if sign == "-" else clock)
