"""Raw columns as they come: what type their cells have, as texts and as numbers.

A raw column is a pandas array, of whatever type a file or a library gave it, or an array of
objects. How its cells are to be read is decided by the column of the model
(`mlops.data.columns.encoders`), which asks here for one of two things: the distinct texts, or the
numbers.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.api.types import (
    infer_dtype,
    is_bool_dtype,
    is_complex_dtype,
    is_datetime64_any_dtype,
    is_float_dtype,
    is_numeric_dtype,
    is_object_dtype,
    is_scalar,
    is_string_dtype,
    is_timedelta64_dtype,
)

from mlops.data.cells.durations import as_seconds
from mlops.data.cells.numbers import NumberFormat, read_column, read_text
from mlops.data.cells.plain import PlainNumbers
from mlops.data.cells.spelling import EXACT_SINGLE, spelled
from mlops.errors import TableError

Kind = Literal["numeric", "categorical", "date"]
Type = Literal["number", "text", "boolean", "category", "time", "duration", "mixed", "empty"]

# fmt: off
_INFERRED: dict[str, Type] = {
    "integer": "number", "floating": "number", "mixed-integer-float": "number",
    "decimal": "number", "boolean": "boolean", "string": "text", "empty": "empty",
    "datetime": "time", "datetime64": "time", "date": "time",
    "timedelta": "duration", "timedelta64": "duration", "time": "duration",
}
# fmt: on


def type_of(name: str, values: Any) -> Type:
    """Tells what type the cells of a raw column have.

    Args:
        name: The column's name, for the error.
        values: The column: [N].

    Raises:
        TableError: The cells are lists, bytes or anything else that is no single value.
    """
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if is_bool_dtype(dtype):
        return "boolean"
    if is_datetime64_any_dtype(dtype):
        return "time"
    if is_timedelta64_dtype(dtype):
        return "duration"
    if is_numeric_dtype(dtype) and not is_complex_dtype(dtype):
        return "number"
    found = str(dtype)
    if is_object_dtype(dtype):
        cells = np.asarray(values, dtype=object)
        found = infer_dtype(cells, skipna=True)
        if found in _INFERRED:
            return _INFERRED[found]
        if found.startswith("mixed") and all(map(_is_value, cells)):
            return "mixed"
    elif is_string_dtype(dtype):
        return "text"
    raise TableError(
        f"column `{name}` must hold one value in a cell, a number, text, a boolean or a date, got "
        f"{found}; turn it into such columns, or leave it out (--data.drop {name})"
    )


def _is_value(cell: Any) -> bool:
    return is_scalar(cell) and not isinstance(cell, (bytes, complex))


def texts_of(name: str, values: Any) -> tuple[np.ndarray, list[str]]:
    """Returns the distinct texts of a raw column, as its cells are written, and where they are.

    Args:
        name: The column's name, for the error.
        values: The column: [N].

    Returns:
        codes: Places in the texts, -1 where a cell has no value: [N] int64.
        texts: The distinct texts; of typed cells the spelling (`cells.spelling.spelled`).

    Raises:
        TableError: A cell is a list or another container.
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, uniques = np.asarray(values.codes, dtype=np.int64), values.categories
        return codes, [spelled(unique) for unique in uniques]
    if is_object_dtype(values.dtype):
        return _texts_of_objects(name, np.asarray(values, dtype=object))
    if is_float_dtype(values.dtype) and isinstance(values, np.ndarray):
        values = pd.array(values)
    codes, uniques = pd.factorize(values)
    return np.asarray(codes, dtype=np.int64), [spelled(unique) for unique in uniques]


def _texts_of_objects(name: str, cells: np.ndarray) -> tuple[np.ndarray, list[str]]:
    # By text, not by value: among objects 1 and True are equal, and the first would name both.
    places: dict[str, int] = {}
    containers = []
    codes = np.full(len(cells), -1, dtype=np.int64)
    for row, cell in enumerate(cells):
        if isinstance(cell, str):
            codes[row] = places.setdefault(cell, len(places))
        elif not _is_value(cell):
            containers.append(cell)
        elif not pd.isna(cell):
            codes[row] = places.setdefault(spelled(cell), len(places))
    if containers:
        raise TableError(
            f"column `{name}` must hold one value in a cell, got {some_of(containers)}; send "
            "text, a number or a boolean"
        )
    return codes, list(places)


def numbers_of(
    name: str, values: Any, form: NumberFormat, *, single: bool = False, binary: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a raw column as numbers.

    Args:
        name: The column's name, for the error.
        values: The column: [N].
        form: How its texts write numbers.
        single: Whether every number is to be rounded to float32, as a column of these is.
        binary: Whether truth values are 1 and 0.

    Returns:
        numbers: NaN for a gap and for a cell that is no finite number: [N] float64, to be kept.
        odd: Positions of the latter: [M] int64.

    Raises:
        TableError: The column's cells are no single values.
    """
    kind = type_of(name, values)
    if kind == "number" and not is_object_dtype(values.dtype):
        numbers, odd = _typed(values, single)
    elif kind == "text" and not is_object_dtype(values.dtype):
        numbers, odd = read_column(form, _arrow(values), binary=binary)
    elif kind == "duration":
        numbers, odd = as_seconds(values), np.array([], dtype=np.int64)
    elif kind == "time" or (kind == "boolean" and not binary):
        numbers, odd = _without(values, ~pd.isna(values))
    elif kind == "category":
        numbers, odd = _by_categories(name, values, form, binary)
    else:
        numbers, odd = _cell_by_cell(np.asarray(values, dtype=object), form, binary)
    if single:
        with np.errstate(over="ignore"):
            numbers = numbers.astype(np.float32).astype(np.float64)
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        numbers[infinite] = np.nan
        odd = np.union1d(odd, infinite)
    return numbers, odd


def _typed(values: Any, single: bool) -> tuple[np.ndarray, np.ndarray]:
    short = is_float_dtype(values.dtype) and values.dtype.itemsize < 8
    if short and not single:
        # Short floats are what they are written as: float32's 0.1 is 0.1.
        floats = values.to_numpy(dtype=np.float32, na_value=np.nan)
        whole = (np.abs(floats) < EXACT_SINGLE) & (floats == np.floor(floats))
        numbers = floats.astype(np.float64)
        if not whole.all():
            texts = pc.cast(pa.array(floats[~whole]), pa.string())
            numbers[~whole] = pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False)
    else:
        numbers = values.to_numpy(dtype=np.float64, copy=True, na_value=np.nan)
    return numbers, np.array([], dtype=np.int64)


def plain_numbers(values: Any, *, with_codes: bool) -> np.ndarray | None:
    """Reads a column of text in which all is plain numbers and gaps, at once.

    Args:
        values: The column, of a string type: [N].
        with_codes: Whether digits with zeros before them are numbers.

    Returns:
        NaN for a gap: [N] float64. None where there is anything else, no number at all, or one so
        long that it may not be read as a number.
    """
    column = PlainNumbers()
    if not column.add(_arrow(values)) or (column.are_codes and not with_codes):
        return None
    numbers = column.all()
    return None if np.isnan(numbers).all() else numbers


def _arrow(values: Any) -> Any:
    return pa.array(values, from_pandas=True)


def _without(values: Any, odd: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.full(len(values), np.nan), np.flatnonzero(np.asarray(odd, dtype=bool))


def _by_categories(
    name: str, values: Any, form: NumberFormat, binary: bool
) -> tuple[np.ndarray, np.ndarray]:
    categories = np.asarray(values.categories, dtype=object)
    found, odd = _cell_by_cell(categories, form, binary)
    codes = np.asarray(values.codes, dtype=np.int64)
    is_odd = np.zeros(len(categories) + 1, dtype=bool)
    is_odd[odd] = True
    return np.append(found, np.nan)[codes], np.flatnonzero(is_odd[codes])


def _cell_by_cell(
    cells: np.ndarray, form: NumberFormat, binary: bool
) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.full(len(cells), np.nan)
    odd = []
    for row, cell in enumerate(cells):
        number = number_of(cell, form, binary)
        if number is None:
            odd.append(row)
        else:
            numbers[row] = number
    return numbers, np.array(odd, dtype=np.int64)


def number_of(cell: Any, form: NumberFormat, binary: bool) -> float | None:
    """Reads one cell, whatever its type: a number, NaN for a gap, None where it is neither."""
    if isinstance(cell, str):
        return read_text(form, cell, binary)
    if isinstance(cell, (bool, np.bool_)):
        return float(cell) if binary else None
    if isinstance(cell, (np.float32, np.float16)):
        return float(str(cell)) if np.isfinite(cell) else (np.nan if np.isnan(cell) else None)
    if cell is None or (is_scalar(cell) and pd.isna(cell)):
        return np.nan
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def no_numbers(name: str, cells: Any) -> str:
    """Phrases the error of cells in a column of numbers that are none."""
    return (
        f"column `{name}` must hold finite numbers, got {some_of(list(cells))}; correct the "
        "cell(s) or leave them empty"
    )


def no_dates(name: str, cells: Any) -> str:
    """Phrases the error of cells in a column of dates that are none."""
    return (
        f"column `{name}` must hold dates, got {some_of(list(cells))}; write them as 2024-12-31 or "
        "leave them empty"
    )


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
