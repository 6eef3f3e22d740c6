"""Hashes of rows: the same on every machine, however a table is stored and columns are taken."""

from __future__ import annotations

import datetime
import unicodedata
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops.data.parts.rowhash import repeats, row_hashes, scattered, text_hashes

NAN = float("nan")


def one(values: Any) -> list[int]:
    """The hashes of a table of one column."""
    return [int(found) for found in row_hashes(pd.DataFrame({"x": pd.Series(values)}))]


def test_hashes_never_change() -> None:
    """A row's part depends on them: other values here would be another version of the split."""
    frame = pd.DataFrame(
        {
            "number": [0.1, -0.0, NAN, 1e300],
            "whole": [1, 2, 3, 2**60],
            "town": pd.Categorical(["Köln", "01", None, "true"]),
            "day": np.array(
                ["1970-01-01", "NaT", "2026-11-28T12:30:00.000001", "1850-01-01"], "M8[us]"
            ),
        }
    )
    assert [f"{found:016x}" for found in row_hashes(frame)] == [
        "87f2e3b6c080da2d",
        "a84037a73559f82f",
        "226ebdaff07a6cb7",
        "bd258133056bab4f",
    ]
    assert [f"{found:016x}" for found in text_hashes(frame["town"])[0]] == [
        "3614cf417b747a54",
        "1aee7eef7a88ac66",
        "0000000000000000",
        "d55ec9b7c7ae5753",
    ]


ALIKE: list[tuple[str, list[Any]]] = [
    ("whole numbers", [pd.array([7], dtype=t) for t in ("int8", "uint64", "Int32", "f4", "f8")]),
    (
        "numbers as categories",
        [[7.0], pd.Categorical(["7"]), pd.Categorical([7.0]), ["7.0"], ["07"]],
    ),
    ("decimals", [[0.1], np.array([0.1], dtype=np.float32), [Decimal("0.1")], [" 0.10 "]]),
    ("truth", [[True], pd.array([True], dtype="boolean"), ["true"], ["TRUE"], [1], [1.0]]),
    ("zero", [[0.0], [-0.0], [0], [False], ["-0"]]),
    (
        "gaps",
        [
            [NAN],
            [None],
            pd.array([None], dtype="Int64"),
            pd.Categorical([None]),
            ["NA"],
            [""],
            [pd.NaT],
        ],
    ),
    ("texts", [["Nîmes"], pd.Categorical(["Nîmes"]), [unicodedata.normalize("NFD", " Nîmes")]]),
    (
        "dates",
        [
            [pd.Timestamp("2026-01-02")],
            np.array(["2026-01-02"], dtype="M8[s]"),
            [pd.Timestamp("2026-01-02 01:00", tz="Europe/Berlin")],
        ],
    ),
    ("beyond float32", [[1e300], [1e299], [float("inf")]]),
    ("rounded once", [np.array([2**60 + 2**36 + 1]), np.array([float(2**60 + 2**36 + 1)])]),
]


@pytest.mark.parametrize(("name", "columns"), ALIKE, ids=[name for name, _ in ALIKE])
def test_a_cell_is_the_same_however_it_is_stored(name: str, columns: list[Any]) -> None:
    found = [one(values)[0] for values in columns]
    assert len(set(found)) == 1, found


def test_unlike_cells_differ() -> None:
    cells = [0, 1, 2, -1, 0.5, 1e-40, 1e30, "a", "A", "a b", "ab", "ü", "1a", None]
    cells += [pd.Timestamp(0), pd.Timestamp(1, unit="us"), datetime.date(2000, 1, 1)]
    found = [one([cell])[0] for cell in cells]
    assert len(set(found)) == len(cells)


def test_names_count_and_the_order_of_columns_does_not() -> None:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(draw.normal(size=(50, 4)), columns=list("abcd"))
    frame["e"] = draw.choice(["x", "y"], 50)
    hashes = row_hashes(frame)
    assert np.array_equal(hashes, row_hashes(frame[list("ecadb")]))
    assert np.array_equal(hashes, row_hashes(frame.rename(columns={"a": " a "})))
    assert not np.any(hashes == row_hashes(frame.rename(columns={"a": "b", "b": "a"})))
    assert not np.any(hashes == row_hashes(frame.rename(columns={"e": "E"})))


def test_rows_hash_alike_wherever_they_are() -> None:
    """More rows than are mixed at a time, and levels in another order."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": draw.normal(size=40_000), "b": draw.choice(["x", "y", None], 40_000)}
    )
    frame["b"] = frame["b"].astype("category")
    hashes = row_hashes(frame)
    assert len(np.unique(hashes)) == len(frame.astype({"a": "f4"}).drop_duplicates())
    part = frame[30_001:][::-1].assign(b=lambda some: some["b"].cat.set_categories(["z", "y", "x"]))
    assert np.array_equal(row_hashes(part), hashes[30_001:][::-1])


def test_a_column_without_values_adds_nothing() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    for void in (NAN, None, pd.NaT):
        assert np.array_equal(row_hashes(frame), row_hashes(frame.assign(void=void)))
    grown = pd.DataFrame({"a": [1, 2, 3, 4], "void": [None, None, None, "now"]})
    assert np.array_equal(row_hashes(frame), row_hashes(grown)[:3])


def test_the_frame_stays_as_it_is() -> None:
    frame = pd.DataFrame({"a": [-0.0, NAN, 1e300], "b": pd.Categorical(["x", None, "y"])})
    before = frame.copy(deep=True)
    with np.errstate(all="raise"):
        row_hashes(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert np.signbit(frame["a"][0])


def test_small_differences_scatter() -> None:
    """Whole numbers, dates one day apart and codes fall evenly, as thresholds need it."""
    days = pd.date_range("2020-01-01", periods=10_000, freq="D")
    for values in (np.arange(10_000), days, np.arange(10_000).astype(str), np.arange(1e4) / 64):
        places = row_hashes(pd.DataFrame({"x": values})) >> np.uint64(54)
        counts = np.bincount((places // 64).astype(int), minlength=16)
        assert np.abs(counts - 625).max() < 5 * 625**0.5
    assert len(np.unique(scattered(np.arange(10_000, dtype=np.uint64)))) == 10_000


def test_texts_of_groups() -> None:
    def texts(values: Any) -> list[int]:
        return [int(found) for found in text_hashes(pd.Series(values))[0]]

    assert texts([7]) == texts([7.0]) == texts(["7"]) == texts([" 7"])
    # As float32 these would be equal.
    big = [10**24 + 1, 10**24 + 2, 2**60, 2**60 + 1]
    assert len(set(texts([str(number) for number in big]))) == 4
    assert texts([2**60 + 1]) == texts([str(2**60 + 1)]) != texts([2**60])
    assert len(set(texts(["7", "07", "x7", "X7"]))) == 4
    gaps = text_hashes(pd.Series(["a", None, "", "NA", "b"]))[1]
    assert gaps.tolist() == [False, True, True, True, False]


def test_repeats_count_from_the_first_row() -> None:
    assert repeats(np.array([5, 7, 5, 5, 7])).tolist() == [0, 0, 1, 2, 1]
    assert repeats(np.array([5, 5, 5, 5]), np.array([0, 1, 0, 1])).tolist() == [0, 0, 1, 1]
    assert repeats(np.array([], dtype=np.uint64)).tolist() == []
