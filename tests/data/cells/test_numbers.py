"""How columns write numbers: formats that are found, and texts that are read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops.data.cells.number_formats import find_format
from mlops.data.cells.numbers import PLAIN, NumberFormat, read_all, read_column
from mlops.data.cells.plain import cast_plain
from mlops.data.columns.finding import read_column as read_raw

COMMA = NumberFormat(",", ".")
GROUPED = NumberFormat(".", ",")
DOLLARS = NumberFormat(".", ",", ("$",))
BLANKS = NumberFormat(",", " ")


@pytest.mark.parametrize(
    ("form", "text", "number"),
    [
        (PLAIN, "1.5", 1.5),
        (PLAIN, " -1.5\t", -1.5),
        (PLAIN, "+3", 3.0),
        (PLAIN, "\u22121.5", -1.5),
        (PLAIN, "1e5", 1e5),
        (PLAIN, "007", 7.0),
        (PLAIN, "", math.nan),
        (PLAIN, "n/a", math.nan),
        (PLAIN, "NAN", math.nan),
        (PLAIN, "-", None),
        (PLAIN, "1,5", None),
        (PLAIN, "1_000", None),
        (PLAIN, "0x10", None),
        (PLAIN, "inf", None),
        (PLAIN, "1e400", None),
        (PLAIN, "\u0663", None),  # an Arabic digit
        (PLAIN, "1 2", None),
        (COMMA, "1.234,5", 1234.5),
        (COMMA, "1.234", 1234.0),
        (COMMA, "1,5", 1.5),
        (COMMA, "1.5", 1.5),  # no group of three digits: as a program sends it
        (COMMA, "12.34,5", None),
        (GROUPED, "1,234.5", 1234.5),
        (GROUPED, "1,234,567", 1234567.0),
        (GROUPED, "12,34", None),
        (GROUPED, "-1,234", -1234.0),
        (GROUPED, "(1,234)", -1234.0),
        (BLANKS, "1 234,5", 1234.5),
        (BLANKS, "1\u00a0234,5", 1234.5),
        (BLANKS, "1\u202f234", 1234.0),
        (DOLLARS, "$1,200.50", 1200.5),
        (DOLLARS, "-$5", -5.0),
        (DOLLARS, "$-5", -5.0),
        (DOLLARS, "12", 12.0),
        (DOLLARS, "€12", None),
        (DOLLARS, "$", None),
        (NumberFormat(affixes=("%",)), "12 %", 12.0),
        (NumberFormat(affixes=("kg",)), "12kg", 12.0),
        (NumberFormat(affixes=("kg",)), "12g", None),
    ],
)
def test_a_text_is_read_by_the_format(form: NumberFormat, text: str, number: float | None) -> None:
    read = form.read(text)
    assert read == number or (read is not None and math.isnan(read) and math.isnan(number or 0))


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["1.5", "2", "x"], PLAIN),
        (["1,5", "2,25", "3"], NumberFormat(",")),
        (["1.234,5", "2,25"], COMMA),
        (["1,234.5", "12"], GROUPED),
        (["12,345", "1,234"], GROUPED),
        (["1 234,5", "12"], BLANKS),
        (["$1.50", "$2"], NumberFormat(affixes=("$",))),
        (["1,50 €", "2,00 €"], NumberFormat(",", affixes=("€",))),
        (["USD 5", "USD 7"], NumberFormat(affixes=("USD",))),
        (["12%", "3%"], NumberFormat(affixes=("%",))),
        (["12 kg", "3 kg"], NumberFormat(affixes=("kg",))),
        (["12 kg", "3 g"], PLAIN),  # of two scales
        (["$5", "€5"], PLAIN),
        (["1A", "2A"], PLAIN),  # a code
        (["P001", "P002"], PLAIN),
        (["2024-01-01", "2024-01-02"], PLAIN),
        (["10:30", "11:00"], PLAIN),
        (["192.168.0.1", "10.0.0.1"], PLAIN),
    ],
)
def test_the_format_of_a_column_is_found(texts: list[str], form: NumberFormat) -> None:
    assert find_format(dict.fromkeys(texts, 1)).format == form


def test_the_decimal_comma_is_likelier_where_semicolons_separate() -> None:
    counts = dict.fromkeys(["1,234", "2,345"], 1)
    assert find_format(counts).format.decimal == "."
    assert find_format(counts, decimal=",").format == NumberFormat(",")


NUMBERS = st.one_of(
    st.integers(-(10**18), 10**18).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["", "NA", "?", "nan", " 5", "+5", "5.", ".5", "1E5", "x", "inf", "1e400"]),
)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(NUMBERS, min_size=1, max_size=8))
def test_a_whole_column_is_read_like_one_text_after_the_other(texts: list[str]) -> None:
    expected, is_odd = read_all(PLAIN, texts)
    for array in (pa.array(texts), pa.chunked_array([texts, texts[:1]])):
        numbers, odd = read_column(PLAIN, array)
        n = len(texts)
        np.testing.assert_array_equal(numbers[:n], expected)
        np.testing.assert_array_equal(odd[odd < n], np.flatnonzero(is_odd))
    quick = cast_plain(pa.array(texts))
    if quick is not None:
        np.testing.assert_array_equal(quick, expected)


N = 200
ROWS = np.arange(N)
NUMBERED = [f"{x:.3f}" for x in np.sin(ROWS) * 50]


def with_cells(texts: list[str], *cells: str) -> list[str]:
    return [*cells, *texts[len(cells) :]]


@pytest.mark.parametrize(
    ("texts", "kind", "codes"),
    [
        (NUMBERED, "numeric", []),
        (with_cells(NUMBERED, "-"), "numeric", ["odd_cells"]),
        (with_cells(NUMBERED, "total", "#DIV/0!", " "), "numeric", ["odd_cells"]),
        (with_cells(NUMBERED, *["unknown"] * 60), "numeric", ["many_odd_cells", "odd_cells"]),
        (
            with_cells(NUMBERED, *[f"word {i % 9}" for i in range(60)]),
            "categorical",
            ["numbers_and_words"],
        ),
        (["01", "02", "1A"] * 60, "categorical", []),
        (["01", "02"] * 60, "categorical", []),
        (["4.0", "6.0", "rotary"] * 60, "categorical", ["numbers_and_words"]),
        (
            with_cells(["1", "2", "3", "4"] * 50, "x", "x", "x"),
            "categorical",
            ["numbers_and_words"],
        ),
        (with_cells(["1", "2", "3", "4"] * 50, "-", "#DIV/0!", "-"), "numeric", ["odd_cells"]),
        (["43%", "0.43"] * 60, "categorical", ["numbers_and_words"]),
        (
            [f"2024-01-{i % 28 + 1:02}" for i in range(110)] + ["unknown"] * 10,
            "date",
            ["many_odd_cells", "odd_cells"],
        ),
        (with_cells(["1", "2", "3", "4"] * 50, "x"), "numeric", ["odd_cells"]),
        (["true", "FALSE"] * 60, "categorical", []),
        (with_cells(["1", "0"] * 60, "true"), "numeric", []),
        ([f"{x:05}" for x in range(90, 290)], "categorical", []),  # postal codes
        ([str(2**60 + i) for i in range(N)], "categorical", ["long_numbers"]),
        ([str(2**60 + i * 10**6) for i in range(N)], "numeric", []),
        (["1.2.3", "1.2.4"] * 60, "categorical", []),
        (["A", "B", "7"] * 60, "categorical", []),
    ],
    ids=lambda value: f"{value[:3]}" if isinstance(value, list) else value,
)
@pytest.mark.parametrize("dtype", ["str", object])
def test_a_column_of_text_holds_numbers_or_levels(
    texts: list[str], kind: str, codes: list[str], dtype: Any
) -> None:
    read = read_raw("x", pd.Series(texts, dtype=dtype).array)
    assert (read.reading.kind, [note.code for note in read.notes]) == (kind, codes)


def test_points_may_stand_between_thousands_where_commas_are_decimal_signs() -> None:
    read = read_raw("x", pd.Series(["1.234", "956", "12.500"] * 20).array, decimal=",")
    assert read.values[:3].tolist() == [1234.0, 956.0, 12500.0]
    assert "a guess" in read.notes[0].text
    plain = read_raw("x", pd.Series(["1.234", "9.5"] * 20).array, decimal=",")
    assert plain.values[:2].tolist() == [1.234, 9.5]


@pytest.mark.parametrize("cell", ["1" + " " * 40_000 + "x" * 15, "1," * 30_000, "(" * 50_000])
def test_a_long_cell_takes_no_time(cell: str) -> None:
    assert NumberFormat(".", ",", ("$",)).read(cell) is None
    assert find_format({cell: 1, "$5": 9}).n_odd == 1


@pytest.mark.parametrize("cell", ["0." + "1" * 399, "0" * 500 + "1", "nan(1)"])
def test_a_cell_is_read_alike_beside_an_odd_one(cell: str) -> None:
    for beside in (["1", "2"], ["1", "-"]):
        numbers, odd = read_column(PLAIN, pa.array([cell, *beside]))
        assert np.isnan(numbers[0])
        assert 0 in odd
