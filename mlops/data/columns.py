"""What the cells of a raw column mean: its kind, its numbers, its labels, its gaps."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api.types import (
    infer_dtype,
    is_bool_dtype,
    is_complex_dtype,
    is_numeric_dtype,
    is_object_dtype,
    is_scalar,
    is_string_dtype,
)

from mlops.errors import TableError

Kind = Literal["numeric", "categorical"]

# fmt: off
MISSING_TEXTS = frozenset({
    "", "?", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan",
    "None", "NULL", "null", "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN",
})
# fmt: on
"""Texts that stand for a missing cell in a CSV file: those of pandas, and the `?` of UCI's tables.

They include `None` and `NA`: as often as not a CSV was written by a program for which they mean "no
value", and one such cell would turn a column of numbers into a column of text. Where `None` is a
real category nothing is lost, for missing cells have a code of their own (see
`mlops.data.features`). In Parquet the types say what is missing, so there these texts are ordinary
values.
"""

_INFERRED_KINDS: dict[str, Kind] = {
    "integer": "numeric",
    "floating": "numeric",
    "mixed-integer-float": "numeric",
    "decimal": "numeric",
    "boolean": "categorical",
    "string": "categorical",
    "empty": "categorical",
}


def kind_of(name: str, values: Any) -> Kind:
    """Tells whether a column holds numbers or categories.

    Booleans are categories, because a boolean column with gaps is read as objects and both must be
    encoded alike. An object column counts as what its cells are.

    Args:
        name: The column's name, for the error.
        values: The column, as a pandas array or an array of objects: [N].

    Raises:
        TableError: The column holds dates, durations, lists or anything else that is neither.
    """
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype) or is_bool_dtype(dtype):
        return "categorical"
    if is_numeric_dtype(dtype) and not is_complex_dtype(dtype):
        return "numeric"
    found = str(dtype)
    if is_object_dtype(dtype):
        cells = np.asarray(values, dtype=object)
        found = infer_dtype(cells, skipna=True)
        if found in _INFERRED_KINDS:
            return _INFERRED_KINDS[found]
        if found.startswith("mixed") and all(map(is_scalar, cells)):
            return "categorical"
    elif is_string_dtype(dtype):
        return "categorical"
    raise TableError(
        f"column `{name}` must hold numbers, text or booleans, got {found}; turn it into numbers "
        "(a date into its year, month, or seconds since a start; a list into columns) or drop it"
    )


def as_numbers(name: str, values: Any) -> np.ndarray:
    """Reads the cells of a numeric column, whatever type pandas gave them.

    Text that spells a number is that number and text in `MISSING_TEXTS` is a gap, so that a row
    sent as text is understood like the same row in a CSV file.

    Args:
        name: The column's name, for the error.
        values: The column, as a pandas array or an array of objects: [N].

    Returns:
        A new array, NaN where a cell is missing: [N] float64.

    Raises:
        TableError: A cell is no number, or is infinite.
    """
    if is_numeric_dtype(values.dtype) and not is_complex_dtype(values.dtype):
        numbers = values.to_numpy(dtype=np.float64, copy=True, na_value=np.nan)
    else:
        numbers = _parse_numbers(name, np.asarray(values, dtype=object))
    infinite = int(np.isinf(numbers).sum())
    if infinite:
        raise TableError(
            f"column `{name}` must hold finite numbers, got {infinite} infinite cell(s); leave a "
            "cell empty where there is no value"
        )
    return numbers


def _parse_numbers(name: str, cells: np.ndarray) -> np.ndarray:
    with suppress(TypeError, ValueError, OverflowError):
        numbers = np.array(cells.tolist(), dtype=np.float64)
        if numbers.shape == cells.shape:
            return numbers
    missing = pd.isna(cells)
    numbers = np.full(len(cells), np.nan)
    unread: list[Any] = []
    for row in np.flatnonzero(~missing):
        cell = cells[row]
        if isinstance(cell, str) and cell.strip() in MISSING_TEXTS:
            continue
        try:
            numbers[row] = float(cell)
        except (TypeError, ValueError, OverflowError):
            unread.append(cell)
    if unread:
        raise TableError(
            f"column `{name}` must hold numbers, got {some_of(unread)}; correct the cell(s) or "
            "leave them empty"
        )
    return numbers


def as_levels(name: str, values: Any) -> tuple[np.ndarray, list[str]]:
    """Reads the cells of a categorical column as codes into the texts of its levels.

    Args:
        name: The column's name, for the error.
        values: The column, as a pandas array or an array of objects: [N].

    Returns:
        codes: [N] int64, -1 where a cell is missing.
        levels: The text of each code, see `level_text`; two codes may share a text.

    Raises:
        TableError: A cell is a list or another container.
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, uniques = np.asarray(values.codes, dtype=np.int64), values.categories
    elif is_object_dtype(values.dtype):
        return _object_levels(name, np.asarray(values, dtype=object))
    else:
        codes, uniques = pd.factorize(values)
    return codes, [level_text(unique) for unique in uniques]


def _object_levels(name: str, cells: np.ndarray) -> tuple[np.ndarray, list[str]]:
    # By text, not by value: among objects 1 and True are equal, and the first would name both.
    places: dict[str, int] = {}
    containers = []
    codes = np.full(len(cells), -1, dtype=np.int64)
    for row, cell in enumerate(cells):
        if isinstance(cell, str):
            codes[row] = places.setdefault(cell, len(places))
        elif not is_scalar(cell):
            containers.append(cell)
        elif not pd.isna(cell):
            codes[row] = places.setdefault(level_text(cell), len(places))
    if containers:
        raise TableError(
            f"column `{name}` must hold one value in a cell, got {some_of(containers)}; send "
            "text, a number or a boolean"
        )
    return codes, list(places)


def level_text(value: Any) -> str:
    """Names a level by text, whatever type it was read as: 1 and 1.0 are both `1`."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def all_missing(name: str) -> str:
    """Phrases the error of a column without a value."""
    return f"column `{name}` must have a value in some training row, got none; drop the column"


def some_of(values: list[Any], most: int = 5) -> str:
    """Lists the first distinct values for an error message: `'a', 'b' and 7 more`."""
    distinct = list(dict.fromkeys(_shortened(value) for value in values))
    shown = ", ".join(distinct[:most])
    return shown if len(distinct) <= most else f"{shown} and {len(distinct) - most} more"


def _shortened(value: Any, most: int = 40) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= most else text[: most - 1] + "…"
