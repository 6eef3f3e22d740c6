"""What a column is does not hang on which of its rows come first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlops.data.columns.finding import TEXTS_LOOKED_AT, read_column

MANY = 3 * TEXTS_LOOKED_AT
MINUTES = pd.date_range("2024-01-01", periods=MANY, freq="min")  # to the 21st


@pytest.mark.parametrize("few_tell", [False, True])
@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y"])
def test_dates_in_order_are_read_by_what_later_ones_tell(form: str, few_tell: bool) -> None:
    times = MINUTES
    if few_tell:
        times = MINUTES[: 12 * 24 * 60].append(MINUTES[-5:])
    values = pd.Series(times.strftime(f"{form} %H:%M"), dtype="str")
    read = read_column("when", values.array)
    assert read.reading.kind == "date"
    np.testing.assert_array_equal(read.values, times.to_numpy())
    assert not [note for note in read.notes if note.warning or note.code == "odd_cells"]


CENTS = np.arange(1, 5 * MANY) / 100  # to 1,499.99
ROUND = np.arange(1001, MANY + 1001)


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        ([f"{number:,.2f}" for number in CENTS], CENTS),
        ([f"{number:,.2f}".translate(str.maketrans(",.", ".,")) for number in CENTS], CENTS),
        ([f"{number:,}" for number in ROUND] + ["1,234,567"], [*ROUND, 1234567]),
        ([f"{n:,}".replace(",", ".") for n in ROUND] + ["1.234,5"], [*ROUND, 1234.5]),
    ],
)
def test_numbers_in_order_are_read_by_what_later_ones_tell(
    texts: list[str], numbers: list[float]
) -> None:
    read = read_column("price", pd.Series(texts, dtype="str").array)
    assert read.reading.kind == "numeric"
    np.testing.assert_array_equal(read.values, numbers)


def test_codes_after_many_numbers_are_no_gaps() -> None:
    texts = [f"{number}.5" for number in range(MANY)] + [f"A{number:05}" for number in range(MANY)]
    read = read_column("code", pd.Series(texts, dtype="str").array)
    assert read.reading.kind == "categorical"
