"""The cells of a request, read as the model's columns read any cell.

A protocol may refuse a cell, but never read it in another way:

| a cell                  | JSON, v2     | MLflow's JSON | CSV           |
|-------------------------|--------------|---------------|---------------|
| null                    | a gap        | a gap         |               |
| NaN                     | refused      | a gap         | a gap         |
| infinite                | refused      | refused       | a gap, noted  |
| text in a number        | refused [1]  | the number that it spells | the same |
| text that spells none   | refused      | refused       | a gap, noted  |
| boolean in a number     | refused      | 0 or 1, where numbers are these |  |
| number in a category    | the level that it spells, in all             |||
| an unknown category     | coded as `other`, noted, in all              |||
| text that is no date, in a date | refused | refused      | a gap, noted  |
| list or object          | refused      | refused       |               |

[1] unless the training table wrote the column's numbers in a way of its own, as `$1,200`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlops.data.cells.dates import is_date_gap
from mlops.data.cells.numbers import PLAIN, read_column
from mlops.data.cells.spelling import spelled
from mlops.data.notes import Tally
from mlops.errors import RequestError
from mlops.serving.rows.cells import Cells, Problems, plain, shown

if TYPE_CHECKING:
    from mlops.data.columns.date_columns import DateColumn
    from mlops.data.columns.encoders import NumericColumn
    from mlops.serving.rows.columns import Columns

Manner = Literal["strict", "lenient", "text"]
_NUMBERS = {int, float, type(None)}
_VALUES = {str, bool, int, float, type(None)}
# Fewer texts are read sooner one by one.
_MANY = 32


def read_cells(
    columns: Columns, cells: Sequence[Sequence[Any]], manner: Manner = "strict"
) -> Cells:
    """Reads cells by what their columns hold.

    Args:
        columns: The model's columns.
        cells: The N cells of each column, in the order of `columns.ordered`.
        manner: What is refused: `strict` as in JSON, `lenient` as by MLflow's server, `text` as in
            CSV.

    Raises:
        RequestError: Cells cannot be read; it names their rows and columns.
    """
    split, end = len(columns.numeric), len(columns.numeric) + len(columns.categorical)
    problems, tally = Problems(), Tally()
    read = _texts_as_numbers if manner == "text" else _numbers
    numbers = read(columns, cells[:split], len(cells[0]), manner, problems, tally)
    texts = [
        _texts(name, column, manner, problems)
        for name, column in zip(columns.categorical, cells[split:end], strict=True)
    ]
    times = [
        _times(column, of_column, manner, problems, tally)
        for column, of_column in zip(columns.dates, cells[end:], strict=True)
    ]
    problems.raise_any()
    return Cells(numbers, texts, tally, times)


def _numbers(
    columns: Columns,
    cells: Sequence[Sequence[Any]],
    n_rows: int,
    manner: Manner,
    problems: Problems,
    tally: Tally,
) -> np.ndarray:
    flat = list(chain.from_iterable(cells))
    if set(map(type, flat)) <= _NUMBERS:
        with suppress(OverflowError):
            numbers = np.array(flat, dtype=np.float64)
            if np.isfinite(numbers).all() or _only_gaps(numbers, flat, manner):
                return columns.rounded(np.ascontiguousarray(numbers.reshape(len(cells), n_rows).T))
    numbers = np.full((n_rows, len(cells)), np.nan)
    for place, (column, of_column) in enumerate(zip(columns.numbers, cells, strict=True)):
        for row, cell in enumerate(of_column):
            try:
                numbers[row, place] = _number(column, cell, manner)
            except RequestError as error:
                message = f"column `{plain(column.name)}` {error.message}"
                problems.add(error.code, message, row=row, field=column.name)
        if problems.full:
            break
    return numbers


def _only_gaps(numbers: np.ndarray, cells: list[Any], manner: Manner) -> bool:
    """Tells whether what is no number is a gap: null, or NaN as well when lenient."""
    gaps = int(np.isnan(numbers).sum())
    return not np.isinf(numbers).any() and (manner == "lenient" or gaps == cells.count(None))


def _number(column: NumericColumn, cell: Any, manner: Manner) -> float:
    if isinstance(cell, float) and not math.isfinite(cell):
        if manner == "lenient" and math.isnan(cell):
            return cell
        raise RequestError(
            422,
            "not_finite",
            f"must hold finite numbers, got {cell}; send null where there is no value",
        )
    is_readable = type(cell) in _NUMBERS or (
        type(cell) in _VALUES and (manner == "lenient" or _written(column, cell))
    )
    number = column.read_cell(cell) if is_readable else None
    if number is None:
        raise RequestError(
            422,
            "wrong_type",
            f"must hold numbers, got {shown(cell)}; send a number, or null where there is no value",
        )
    return number


def _written(column: NumericColumn, cell: Any) -> bool:
    return isinstance(cell, str) and column.format != PLAIN


def _texts_as_numbers(
    columns: Columns,
    cells: Sequence[Sequence[str]],
    n_rows: int,
    manner: Manner,
    problems: Problems,
    tally: Tally,
) -> np.ndarray:
    numbers = np.empty((n_rows, len(cells)))
    for place, (column, texts) in enumerate(zip(columns.numbers, cells, strict=True)):
        numbers[:, place], odd = _read_texts(column, texts)
        tally.add("odd_cell", column.name, odd)
    return columns.rounded(numbers)


def _read_texts(column: NumericColumn, texts: Sequence[str]) -> tuple[np.ndarray, int]:
    if len(texts) >= _MANY:
        import pyarrow as pa

        array = pa.array(texts, pa.string())
        numbers, odd = read_column(column.format, array, binary=column.binary)
        return numbers, len(odd)
    read = [column.read_cell(text) for text in texts]
    return np.array([np.nan if x is None else x for x in read]), read.count(None)


def _times(
    column: DateColumn, cells: Sequence[Any], manner: Manner, problems: Problems, tally: Tally
) -> np.ndarray:
    times = np.empty(len(cells), dtype="datetime64[us]")
    for row, cell in enumerate(cells):
        is_text = isinstance(cell, str)
        times[row] = column.format.read_one(cell) if is_text else np.datetime64("NaT")
        is_gap = cell is None or (is_text and is_date_gap(cell))
        if manner == "lenient" and isinstance(cell, float) and math.isnan(cell):
            is_gap = True
        if is_gap or not np.isnat(times[row]):
            continue
        if manner == "text":
            tally.add("odd_cell", column.name, 1)
            continue
        problems.add(
            "wrong_type",
            f"column `{plain(column.name)}` must hold dates, got {shown(cell)}; send text such as "
            "2024-12-31T23:59:00, or null where there is no value",
            row=row,
            field=column.name,
        )
    return times


def _texts(
    name: str, column: Sequence[Any], manner: Manner, problems: Problems
) -> Sequence[str | None]:
    kinds = set(map(type, column))
    if kinds <= {str, type(None)}:
        return column
    texts: list[str | None] = []
    for row, cell in enumerate(column):
        text: str | None = None
        if type(cell) not in _VALUES:
            problems.add(
                "wrong_type",
                f"column `{plain(name)}` must hold categories, got {shown(cell)}; send text, a "
                "number or a boolean, or null where there is no value",
                row=row,
                field=name,
            )
        elif isinstance(cell, float) and not math.isfinite(cell):
            if not (manner == "lenient" and math.isnan(cell)):
                problems.add(
                    "not_finite",
                    f"column `{plain(name)}` must hold categories, got {cell}; send null where "
                    "there is no value",
                    row=row,
                    field=name,
                )
        elif cell is not None:
            text = spelled(cell)
        texts.append(text)
    return texts
