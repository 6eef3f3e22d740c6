"""How columns write dates: formats that are found, texts and typed cells that are read."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlops.data.cells.date_formats import find_dates
from mlops.data.cells.dates import DateFormat, as_times
from mlops.data.cells.durations import as_seconds, read_duration

NEW_YORK = timezone(timedelta(hours=-5))


@pytest.mark.parametrize(
    ("form", "text", "time"),
    [
        ("iso", "2024-01-31", "2024-01-31"),
        ("iso", " 2024-01-31\t", "2024-01-31"),
        ("iso", "2024-01-31T10:11", "2024-01-31T10:11"),
        ("iso", "2024-01-31 10:11:12", "2024-01-31T10:11:12"),
        ("iso", "2024-01-31 10:11:12.5", "2024-01-31T10:11:12.5"),
        ("iso", "2024-01-31 10:11:12,5", "2024-01-31T10:11:12.5"),
        ("iso", "2024-01-31T10:11:12.123456789Z", "2024-01-31T10:11:12.123456"),
        ("iso", "1960-01-31T10:11:12.123456789Z", "1960-01-31T10:11:12.123456"),
        ("iso", "2024-01-31T10:11:12+02:00", "2024-01-31T08:11:12"),
        ("iso", "2024-01-31 10:11:12 +0200", "2024-01-31T08:11:12"),
        ("iso", "2024-01-31 10:11:12-05", "2024-01-31T15:11:12"),
        ("iso", "2024-01-31 10:11:12 UTC", "2024-01-31T10:11:12"),
        ("iso", "2024-1-3", "2024-01-03"),
        ("iso", "2024/01/03 4:05 PM", "2024-01-03T16:05"),
        ("iso", "2024.01.03", "2024-01-03"),
        ("iso", "0001-01-01", "0001-01-01"),
        ("iso", "9999-12-31 23:59:59.999999", "9999-12-31T23:59:59.999999"),
        ("iso", "9999-12-31T23:59:59-05:00", "NaT"),  # beyond the years that there are
        ("iso", "0001-01-01T00:00:00+05:00", "NaT"),
        ("iso", "0000-01-01", "NaT"),
        ("iso", "2024-02-30", "NaT"),
        ("iso", "2023-02-29", "NaT"),
        ("iso", "2024-13-01", "NaT"),
        ("iso", "2024-01-31 24:00", "NaT"),
        ("iso", "2024-01-31 10:60", "NaT"),
        ("iso", "2024-01-31 13:00 PM", "NaT"),
        ("iso", "31/01/2024", "NaT"),
        ("iso", "2024", "NaT"),
        ("iso", "2024-01", "NaT"),
        ("iso", "20240131", "NaT"),
        ("iso", "now", "NaT"),
        ("iso", "today", "NaT"),
        ("iso", "nan", "NaT"),
        ("iso", "", "NaT"),
        ("iso", "\u0662\u0660\u0662\u0664-01-31", "NaT"),  # Arabic digits
        ("%d/%m/%Y", "3/4/2024", "2024-04-03"),
        ("%d/%m/%Y", "03.04.2024", "2024-04-03"),
        ("%d/%m/%Y", "03/04/2024 13:14", "2024-04-03T13:14"),
        ("%d/%m/%Y", "2024-04-03T00:00:00Z", "2024-04-03"),  # as JSON clients send it
        ("%d/%m/%Y", "4/13/2024", "NaT"),
        ("%d/%m/%Y", "3/4/24", "2024-04-03"),
        ("%d/%m/%Y", "3/4-2024", "NaT"),
        ("%m/%d/%Y", "3/4/2024", "2024-03-04"),
        ("%m/%d/%Y", "3/4/2024, 12:02:03 AM", "2024-03-04T00:02:03"),
        ("%m/%d/%Y", "3/4/2024 12:02\u202fpm", "2024-03-04T12:02"),
        ("%m/%d/%y", "3/4/68", "2068-03-04"),
        ("%m/%d/%y", "3/4/69", "1969-03-04"),
        ("%d.%m.%y", "03.04.24", "2024-04-03"),
        ("%d.%m.%y", "3.4.24", "NaT"),
        ("%d %b %Y", "3 Jan 2024", "2024-01-03"),
        ("%d %b %Y", "3 JANUARY 2024 10:11", "2024-01-03T10:11"),
        ("%d %b %Y", "03-Jan-2024", "2024-01-03"),
        ("%d %b %Y", "Wed, 3 Jan 2024 10:00:00 GMT", "2024-01-03T10:00"),
        ("%d %b %Y", "3rd Sept. 2024", "2024-09-03"),
        ("%d %b %Y", "3 Janvier 2024", "NaT"),
        ("%b %d %Y", "Jan 3, 2024", "2024-01-03"),
        ("%b %d %Y", "May 3 2024 1:02 pm", "2024-05-03T13:02"),
        ("%d %b %y", "03-Jan-24", "2024-01-03"),
    ],
)
def test_a_text_is_read(form: str, text: str, time: str) -> None:
    date_format = DateFormat(form)
    expected = np.datetime64(time, "us")
    np.testing.assert_array_equal(date_format.read_one(text), expected)
    np.testing.assert_array_equal(date_format.read([text, "2024-05-06", "?"])[:1], expected)


@pytest.mark.parametrize(
    ("texts", "form", "guessed"),
    [
        (["2024-01-31", "", "2024-02-01"], "iso", False),
        (["2024-01-31T10:11:12Z", "2024-01-31T10:11:12+02:00"], "iso", False),
        (["2024-01-31 10:11", "NaT", "2024-01-31"], "iso", False),
        (["2024/01/31"], "iso", False),
        (["3/4/2024", "13/4/2024"], "%d/%m/%Y", False),
        (["3/4/2024", "4/13/2024"], "%m/%d/%Y", False),
        (["3-4-2024", "13-4-2024 10:00"], "%d-%m-%Y", False),
        (["3/4/2024", "4/3/2024"], "%m/%d/%Y", True),
        (["3-4-2024"], "%m-%d-%Y", True),
        (["3.4.2024"], "%d.%m.%Y", True),
        (["1/1/2024", "2/2/2024"], "%m/%d/%Y", True),  # the same both ways, so far
        (["2024-01-31"] * 40 + ["99/99/9999"], "iso", False),
        (["3.14.2024"], "%m.%d.%Y", False),
        (["3/4/24", "31/4/24", "31/3/24"] + ["1/2/54"] * 40, "%d/%m/%y", False),
        (["03.04.24", "13.04.24", "13.04.99"], "%d.%m.%y", False),
        (["3 Jan 2024", " 4 February 2024 "], "%d %b %Y", False),
        (["Jan 3, 2024", "Feb 4, 2024 1:02 PM"], "%b %d %Y", False),
        (["03-Jan-2024"], "%d %b %Y", False),
        (["24-01-31", "24-02-29", "23-12-30"], "%y-%m-%d", True),
        (["99-01-31", "98-02-28"], "%y-%m-%d", False),
        (["31-01-24", "29-02-24", "30-12-23"], "%d-%m-%y", True),
        (["3/4/24", "13/4/24", "99/99/99", "x"] + ["31/1/24"] * 60, "%d/%m/%y", False),
        (["03-Jan-24"], "%d %b %y", False),
        (["13/4/2024", "2024-05-06"], "%d/%m/%Y", False),
        (["13/4/2024", "14.4.2024", "05-04-24", "5/4/2024 10:00"], "%d/%m/%Y", False),
        (["3 Jan 2024", "Jan 4, 2024", "5-Jan-24"], "%d %b %Y", False),
    ],
)
def test_a_format_is_found(texts: list[str], form: str, guessed: bool) -> None:
    found = find_dates(pd.Series(texts).value_counts().to_dict())
    assert found is not None
    assert (found.format, found.guessed) == (DateFormat(form), guessed)


# fmt: off
NO_DATES = [
    "2024", "12.5", "20240131", "1.2.3", "1.10.12", "2024.1.2", "127.0.0.1", "1-2-3", "1/2",
    "10:30", "10:30:00", "10:30 PM", "1 days 00:00:00", "0 days", "1,234", "1e5", "555-12-34",
    "12-34-56", "99/99/9999", "2024-01", "May", "May 2024", "monday", "now", "yes", "?", "",
]
# fmt: on


@pytest.mark.parametrize("text", NO_DATES)
def test_no_dates(text: str) -> None:
    assert find_dates({text: 100}) is None


def test_a_column_with_other_things_is_no_column_of_dates() -> None:
    assert find_dates({}) is None
    assert find_dates({"2024-01-31": 94, "x": 6}) is None
    found = find_dates({"2024-01-31": 95, "x": 3, "2024-02-30": 2, "": 500})
    assert found is not None
    assert (found.dates, found.odd, found.n_odd) == (95, {"x": 3, "2024-02-30": 2}, 5)


def test_a_format_comes_back_from_json() -> None:
    form = DateFormat("%d/%m/%Y")
    assert DateFormat.from_json(json.loads(json.dumps(form.to_json()))) == form
    assert (form.told(), DateFormat().told()) == ("day/month/year", "year-month-day")


FORMS = ["iso", "%d/%m/%Y", "%m-%d-%Y", "%d.%m.%y", "%m/%d/%y", "%d %b %Y", "%b %d %Y", "%d %b %y"]
TIMES = ["", "T%H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", ", %I:%M:%S %p", "T%H:%M:%SZ"]
MOMENTS = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31))


def written(form: str, moment: datetime) -> str:
    form = "%Y-%m-%d" if form == "iso" else form
    # C's strftime does not fill up years.
    return moment.strftime(form.replace("%Y", f"{moment.year:04}"))


@given(
    st.sampled_from(FORMS),
    st.lists(
        st.one_of(
            st.builds(
                lambda form, time, moment, zone: (
                    written(form, moment) + moment.strftime(time) + zone
                ),
                st.sampled_from(FORMS),
                st.sampled_from(TIMES),
                MOMENTS,
                st.sampled_from(["", "", "Z", "+01:00", "-1130", "+14", "+99:59"]),
            ),
            st.text("0123456789-/.: TZ+aApPmM", max_size=25),
            st.text(max_size=10),
        ),
        max_size=5,
    ),
)
@example("iso", ["0000-12-31", "2024-02-30", "0001-01-01T00:00+14", "9999-12-31 23:59-14:00"])
def test_one_and_many_texts_are_read_alike(form: str, texts: list[str]) -> None:
    one = [DateFormat(form).read_one(text) for text in texts]
    many = DateFormat(form).read(texts)
    assert many.dtype == "datetime64[us]"
    np.testing.assert_array_equal(np.array(one, dtype="datetime64[us]"), many)


@given(
    st.sampled_from([form for form in FORMS if "y" not in form]),
    st.sampled_from(["T%H:%M:%S.%f", " %I:%M:%S.%f %p"]),
    MOMENTS,
)
def test_what_strftime_writes_is_read(form: str, time: str, moment: datetime) -> None:
    text = written(form, moment) + moment.strftime(time)
    assert DateFormat(form).read_one(text) == np.datetime64(moment, "us")


NAIVE = ["2024-01-31T08:11:12.123456", "NaT", "1960-02-29T00:00:00"]
AWARE = pd.DatetimeIndex(NAIVE).tz_localize("UTC").tz_convert("America/New_York")


@pytest.mark.parametrize(
    "values",
    [
        np.array(NAIVE, dtype="datetime64[us]"),
        pd.DatetimeIndex(NAIVE).array,
        pd.DatetimeIndex(NAIVE).as_unit("ns").array,
        AWARE.array,
        AWARE.as_unit("ns").array,
        AWARE.astype(object).array,
        np.array([AWARE[0].to_pydatetime(), None, datetime(1960, 2, 29)], dtype=object),
        np.array([np.datetime64(NAIVE[0]), pd.NaT, date(1960, 2, 29)], dtype=object),
        pd.Series(NAIVE).astype("datetime64[ns]").astype("timestamp[ns][pyarrow]").array,
        AWARE.to_series().astype(pd.ArrowDtype(pa.timestamp("us", "America/New_York"))).array,
    ],
)
def test_typed_times_are_read(values: Any) -> None:
    times = as_times(values)
    assert times.dtype == "datetime64[us]"
    np.testing.assert_array_equal(times, np.array(NAIVE, dtype="datetime64[us]"))


def test_nanoseconds_are_cut_off() -> None:
    values = np.array(["1960-01-31T10:11:12.123456789"], dtype="datetime64[ns]")
    for times in (values, pd.DatetimeIndex(values).tz_localize("UTC").astype(object).array):
        assert as_times(times) == np.datetime64("1960-01-31T10:11:12.123456")


def test_typed_times_outside_the_years_that_there_are_count_as_gaps() -> None:
    for values in (
        np.array(["20000-01-01", "-0400-01-01", "200000000000-01-01"], dtype="datetime64[s]"),
        np.array([datetime.max.replace(tzinfo=NEW_YORK), None, "2024-01-01"], dtype=object),
    ):
        assert np.isnat(as_times(values)).all()
    assert as_times(np.array([date(1, 1, 1)], dtype=object)) == np.datetime64("0001-01-01")


@pytest.mark.parametrize(
    "values",
    [
        np.array([3723.5, np.nan, -3600.0]) * 1e9 // 1 * np.timedelta64(1, "ns"),
        pd.to_timedelta(["01:02:03.5", None, "-1 days +23:00:00"]).array,
        np.array([timedelta(seconds=3723.5), None, timedelta(hours=-1)], dtype=object),
        np.array([time(1, 2, 3, 500_000), "x", pd.Timedelta(hours=-1)], dtype=object),
        np.array([np.timedelta64(3723500, "ms"), 1.0, timedelta(hours=-1)], dtype=object),
        pd.array(
            [timedelta(seconds=3723.5), None, timedelta(hours=-1)],
            dtype=pd.ArrowDtype(pa.duration("us")),
        ),
    ],
)
def test_typed_durations_are_seconds(values: Any) -> None:
    np.testing.assert_array_equal(as_seconds(values), [3723.5, np.nan, -3600.0])


def test_the_longest_durations_do_not_overflow() -> None:
    longest = np.array([timedelta.max], dtype=object)
    assert as_seconds(longest) == pytest.approx(999_999_999 * 86_400.0)
    assert as_seconds(np.array([2**60], dtype="timedelta64[s]")) == 2.0**60


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0 days 01:02:03", 3723.0),
        ("1 days 00:00:00.5", 86400.5),
        ("-1 days +23:00:00", -3600.0),
        ("-1 day, 23:00:00", -3600.0),
        ("2 days", 172800.0),
        ("01:02:03", 3723.0),
        ("-01:02:03", -3723.0),
        ("14:30", 52200.0),
        ("100:00:00", 360000.0),
        ("", math.nan),
        ("NaT", math.nan),
        ("5", None),
        ("1.5", None),
        ("14:60", None),
        ("2024-01-01", None),
        ("noon", None),
    ],
)
def test_a_duration_is_read(text: str, seconds: float | None) -> None:
    np.testing.assert_equal(read_duration(text), seconds)


@given(st.timedeltas(timedelta(days=-99_999), timedelta(days=99_999)))
def test_durations_are_read_as_they_are_written(duration: timedelta) -> None:
    seconds = duration // timedelta(microseconds=1) / 1e6
    for text in (str(duration), str(pd.Timedelta(duration))):
        assert read_duration(text) == seconds
    typed = [np.array([duration], dtype=object), pd.to_timedelta([duration]).array]
    for values in (*typed, pd.to_timedelta([duration]).as_unit("ns").array):
        assert as_seconds(values) == seconds
