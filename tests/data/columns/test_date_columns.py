"""Columns of dates, and the differences between them, as the network sees them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops.data.cells.date_formats import find_dates
from mlops.data.cells.dates import DateFormat
from mlops.data.columns.date_columns import DateColumn, describe, iso_text, times_of
from mlops.data.columns.encoders import LIMIT
from mlops.data.columns.time_scales import Durations
from mlops.errors import TableError


def times(*texts: str | None) -> np.ndarray:
    return np.array(["NaT" if text is None else text for text in texts], dtype="datetime64[us]")


def encoded(column: DateColumn, values: np.ndarray) -> np.ndarray:
    out = np.zeros((len(values), column.width), dtype=np.float32)
    column.write(values, out)
    return out


def differences(durations: Durations, *values: np.ndarray) -> np.ndarray:
    out = np.zeros((len(values[0]), durations.width), dtype=np.float32)
    durations.write(values, out)
    return out


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (times("2024-01-01", "2024-01-01"), []),
        (times("2024-01-01", None), ["missing"]),
        (times("2024-01-01", "2024-01-08"), ["seconds", "day"]),
        (times("2024-01-01T10", "2024-01-01T11"), ["seconds", "hour"]),
        (times("2024-01-01", "2024-01-02"), ["seconds", "day", "weekday"]),
        (times("2018-01-01", "2024-01-01"), ["seconds", "year"]),  # both a Monday
        (
            times("2018-01-01", "2024-03-05T12:00", None),
            ["seconds", "year", "month", "day", "weekday", "hour", "missing"],
        ),
    ],
)
def test_the_parts_that_vary_are_outputs(values: np.ndarray, parts: list[str]) -> None:
    column = DateColumn.fit("when", values)
    assert (column.seconds is not None) == ("seconds" in parts)
    assert (column.year is not None) == ("year" in parts)
    assert list(column.cycles) == [part for part in parts if part in column.cycles]
    assert column.missing == ("missing" in parts)
    assert column.width == len(parts) + len(column.cycles)
    out = encoded(column, values)
    assert np.isfinite(out).all()
    assert not len(out.T) or np.ptp(out, axis=0).max() > 0.0


def test_what_outputs_hold() -> None:
    column = DateColumn.fit("when", times("2018-01-01", "2024-02-05T18:00", None))
    out = encoded(column, times("2018-01-01", "2021-04-01T06:00", None, "2018-01-01"))
    assert column.cycles == ("month", "day", "hour")
    seconds, year, *cycles, missing = out.T
    first, last = out[0][:2], encoded(column, times("2024-02-05T18:00"))[0][:2]
    np.testing.assert_allclose(first, [-1.0, -1.0])
    np.testing.assert_allclose(last, [1.0, 1.0])
    assert -1.0 < seconds[1] < 1.0
    assert year[1] == 0.0
    # April begins when a quarter of the year has passed, and 6:00 is a quarter of the day.
    np.testing.assert_allclose([cycle[1] for cycle in cycles], [1, 0, 0, 1, 1, 0], atol=1e-6)
    np.testing.assert_array_equal(missing, [0, 0, 1, 0])
    np.testing.assert_array_equal(out[2, :-1], 0.0)
    np.testing.assert_array_equal(out[0], out[3])


@given(st.datetimes())
def test_parts_of_a_time_are_those_of_the_calendar(moment: Any) -> None:
    column = DateColumn.fit("when", times("2018-01-01", "2024-03-06T12:00"))
    assert column.cycles == ("month", "day", "weekday", "hour")
    out = encoded(column, np.array([moment], dtype="datetime64[us]"))[0]
    assert np.abs(out).max() <= LIMIT
    hours = moment.hour + moment.minute / 60 + (moment.second + moment.microsecond / 1e6) / 3600
    passed = [
        (moment.month - 1) / 12,
        (moment.day - 1) / 31,
        moment.weekday() / 7,
        hours / 24,
    ]
    angles = 2 * np.pi * np.array(passed)
    np.testing.assert_allclose(out[2::2], np.sin(angles), atol=1e-5)
    np.testing.assert_allclose(out[3::2], np.cos(angles), atol=1e-5)


def test_dates_far_from_all_others_do_not_spoil_a_column() -> None:
    usual = np.datetime64("2024-01-01", "us") + np.arange(99) * np.timedelta64(1, "D")
    with_end = np.append(usual, times("9999-12-31"))
    column = DateColumn.fit("until", with_end)
    out = encoded(column, with_end)
    assert (column.first, column.last) == tuple(usual[[0, -1]].astype(np.int64))
    assert np.ptp(out[:99, 0]) > 3.0
    assert np.abs(out).max() < 10.0
    assert column.outside(with_end) == 1


def test_times_outside_are_counted() -> None:
    column = DateColumn.fit("when", times("2024-01-01", "2024-01-11"))
    near = times("2024-01-05", "2023-12-22", "2024-01-21", None)
    assert column.outside(near) == 0
    assert column.outside(times("2023-12-21", "2024-01-22", None, "0001-01-01", "9999-12-31")) == 4


def test_a_column_without_a_date_is_refused() -> None:
    with pytest.raises(TableError, match="`when` must have a value"):
        DateColumn.fit("when", times(None, None))


MOMENTS = st.lists(st.one_of(st.none(), st.datetimes()), min_size=2, max_size=6)


@given(MOMENTS)
def test_a_column_comes_back_from_json_bit_by_bit(moments: list[Any]) -> None:
    values = np.array([*moments, "2024-01-01"], dtype="datetime64[us]")
    column = DateColumn.fit("when", values, DateFormat("%d/%m/%Y"))
    again = DateColumn.from_json(json.loads(json.dumps(column.to_json())))
    assert again == column
    out = encoded(column, values)
    assert np.isfinite(out).all()
    assert np.abs(out).max(initial=0.0) <= LIMIT
    np.testing.assert_array_equal(encoded(again, values), out)
    # A row alone is coded as among the others.
    np.testing.assert_array_equal(encoded(column, values[:1]), out[:1])


def test_differences_are_in_reach_though_starts_vary_over_a_year() -> None:
    generator = np.random.default_rng(0)
    start = times("2024-01-01") + generator.integers(0, 500_000, 600) * np.timedelta64(1, "m")
    late = generator.random(600) < 0.5
    stop = start + np.where(late, 50, 5) * np.timedelta64(1, "m")
    durations = Durations.fit(["start", "stop"], [start, stop])
    out = differences(durations, start, stop)
    assert durations.pairs == (("start", "stop"),)
    np.testing.assert_array_equal(out[:, 0] > 0.0, late)
    assert np.abs(out).min() > 0.5
    again = Durations.from_json(json.loads(json.dumps(durations.to_json())))
    assert again == durations
    np.testing.assert_array_equal(differences(again, start, stop), out)


def test_which_columns_are_compared() -> None:
    generator = np.random.default_rng(0)
    columns = [
        times("2024-01-01") + generator.integers(0, 9_999, 50) * np.timedelta64(1, "m")
        for _ in range(6)
    ]
    assert Durations.fit([], []).width == 0
    assert Durations.fit(list("a"), columns[:1]).width == 0
    assert len(Durations.fit(list("abcd"), columns[:4]).pairs) == 6
    assert Durations.fit(list("abcde"), columns[:5]).pairs == tuple(("a", x) for x in "bcde")
    # What does not vary is no output: the same times, or a day later.
    shifted = columns[0] + np.timedelta64(1, "D")
    assert Durations.fit(list("abc"), [columns[0], columns[0], shifted]).width == 0


def test_a_gap_in_either_column_is_no_difference() -> None:
    one = times("2024-01-01", "2024-01-01", None, "2024-01-01")
    other = times("2024-01-02", "2024-01-04", "2024-01-02", None)
    durations = Durations.fit(["one", "other"], [one, other])
    np.testing.assert_allclose(differences(durations, one, other)[:, 0], [-1.0, 1.0, 0.0, 0.0])
    assert Durations.fit(["one", "other"], [one, times(None, None, None, None)]).width == 0


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("pattern", [None, "%d/%m/%Y %H:%M:%S"])
def test_csv_and_parquet_have_the_same_outputs(
    tmp_path: Path, zone: str | None, unit: str, pattern: str | None
) -> None:
    generator = np.random.default_rng(0)
    moments = times("1969-01-01") + generator.integers(0, 2**31, 200) * np.timedelta64(1, "s")
    moments[::7] = np.datetime64("NaT")
    typed = pd.DataFrame({"when": pd.DatetimeIndex(moments).tz_localize(zone).as_unit(unit)})
    typed.to_parquet(tmp_path / "table.parquet")
    parquet = pd.read_parquet(tmp_path / "table.parquet")["when"].array
    if pattern is not None and zone is not None:  # as people write it: without a zone, in UTC
        typed["when"] = typed["when"].dt.tz_convert("UTC").dt.tz_localize(None)
    text = typed.to_csv(index=False, date_format=pattern)
    csv = pd.read_csv(io.StringIO(text), dtype="str", keep_default_na=False)["when"].array

    found = find_dates(pd.Series(csv).value_counts().to_dict())
    assert found is not None
    assert not found.odd
    of_text, odd = times_of("when", csv, found.format)
    of_typed, odd_typed = times_of("when", parquet, found.format)
    np.testing.assert_array_equal(of_text, of_typed)
    assert len(odd) == len(odd_typed) == 0
    column = DateColumn.fit("when", of_text, found.format)
    assert column == DateColumn.fit("when", of_typed, found.format)
    np.testing.assert_array_equal(encoded(column, of_text), encoded(column, of_typed))


def test_odd_cells_are_found() -> None:
    form = DateFormat("%d/%m/%Y")
    mixed = np.array(["3/4/2024", None, "x", "", 5, pd.Timestamp("2024-04-03")], dtype=object)
    read, odd = times_of("when", mixed, form)
    day = "2024-04-03"
    np.testing.assert_array_equal(read, times(day, None, None, None, None, day))
    assert odd.tolist() == [2, 4]
    seconds = np.array(["20000-01-01", "NaT", "2024-04-03"], dtype="datetime64[s]")
    typed = pd.DatetimeIndex(seconds).array
    read, odd = times_of("when", typed, form)
    np.testing.assert_array_equal(read, times(None, None, day))
    assert odd.tolist() == [0]
    for empty in (np.array([], dtype=object), np.array([None], dtype=object)):
        assert np.isnat(times_of("when", empty, form)[0]).all()


def test_a_column_is_described() -> None:
    assert describe(times("2024-01-03", "2024-01-01", "2024-01-02", None)) == {
        "kind": "date",
        "min": "2024-01-01",
        "max": "2024-01-03",
        "typical": "2024-01-02",
        "gaps": True,
        "whole_days": True,
    }
    described = describe(times("2024-01-01T10:11:12.5", "0001-01-01"))
    assert described["max"] == "2024-01-01T10:11:12.500000"
    assert described["min"] == described["typical"] == "0001-01-01T00:00:00"
    assert not described["gaps"]
    assert not described["whole_days"]


@given(st.datetimes())
def test_times_are_written_as_they_are_read(moment: Any) -> None:
    time = np.datetime64(moment, "us")
    assert DateFormat().read_one(iso_text(time)) == time
    assert iso_text(int(time.astype(np.int64))) == iso_text(time)
    assert math.isfinite(time.astype(np.int64))
