"""The cells of a request, checked and read: numbers as one matrix, categories as text.

Two ways of reading, `strict` and as MLflow's server reads:

| a cell               | strict                     | lenient                        |
|----------------------|----------------------------|--------------------------------|
| null                 | a gap                      | a gap                          |
| NaN                  | refused                    | a gap                          |
| infinite             | refused                    | refused                        |
| text in a number     | refused                    | the number it spells, or a gap |
| boolean in a number  | refused                    | 0 or 1                         |
| number in a category | the category of that name  | the same                       |
| an unknown category  | coded as `other`           | the same                       |
| list or object       | refused                    | refused                        |
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlops.data.columns import MISSING_TEXTS, level_text, some_of
from mlops.data.notes import Note
from mlops.errors import Detail, RequestError

if TYPE_CHECKING:
    from mlops.serving.predictor import Columns

MOST_DETAILS = 20
MOST_TEXT = 60
MOST_NAME = 1000
_STRICT = {int, float, type(None)}
_LENIENT = {str, bool, int, float, type(None)}


class Cells(NamedTuple):
    """The cells of N rows.

    Attributes:
        numbers: The numeric columns: [N, k] float64, NaN for a gap.
        texts: The N cells of each categorical column; None for a gap.
        notes: What is to be said of them in the answer.
    """

    numbers: np.ndarray
    texts: list[Sequence[str | None]]
    notes: tuple[Note, ...] = ()


class RowLimits(NamedTuple):
    """How many rows a request may have.

    Attributes:
        most: More are refused.
        here: More are for another thread than the event loop's.
    """

    most: int
    here: int


class ForAnotherThread(Exception):
    """A request turns out to be more work than the event loop may do; it is to be begun again."""


class Problems:
    """Collects what is wrong with a request, so that it is all said at once.

    Attributes:
        details: The first `MOST_DETAILS` of them.
    """

    def __init__(self) -> None:
        self.details: list[Detail] = []
        self._codes: dict[str, None] = {}

    def add(
        self, code: str, message: str, *, row: int | None = None, field: str | None = None
    ) -> None:
        """Notes one problem."""
        if not self.full:
            name = None if field is None else plain(field, MOST_NAME)
            self.details.append(Detail(row, name, message))
            self._codes[code] = None

    @property
    def full(self) -> bool:
        """Whether to stop looking."""
        return len(self.details) >= MOST_DETAILS

    def raise_any(self) -> None:
        """Refuses the request if there was a problem.

        Raises:
            RequestError: There was.
        """
        if self.details:
            raise self.refusal()

    def refusal(self) -> RequestError:
        """Returns what is to be said of the problems, of which there is one at least."""
        first = self.details[0]
        where = f"row {first.row}: " if first.row is not None else ""
        more = f" (and {len(self.details) - 1} more)" if len(self.details) > 1 else ""
        code = next(iter(self._codes)) if len(self._codes) == 1 else "invalid_rows"
        return RequestError(422, code, f"{where}{first.message}{more}", self.details)


def plain(text: str, most: int = MOST_TEXT) -> str:
    """Makes a text of a request fit to be repeated: short, and encodable."""
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(value: Any) -> str:
    """Names a value of a request in a message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f"the text {plain(value)!r}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 100:
        return "a number of too many digits"
    return plain(repr(value))


def check_names(
    names: Sequence[str],
    columns: Columns,
    problems: Problems,
    *,
    besides: Collection[str] = (),
    row: int | None = None,
) -> None:
    """Notes columns that are missing, and those that neither the model has nor `besides`."""
    given = set(names)
    for name in columns.names:
        if name not in given and not problems.full:
            problems.add(
                "missing_column",
                f"column `{plain(name)}` must be in every row, got none; send null where there is "
                "no value",
                row=row,
                field=name,
            )
    for name in names:
        if problems.full:
            return
        if name not in columns.known and name not in besides:
            problems.add(
                "extra_column",
                f"a row must have the columns of the model only, got `{plain(name)}`; leave it out "
                "(GET /model lists the columns)",
                row=row,
                field=name,
            )


def notes_on_names(names: Collection[str], columns: Columns) -> tuple[Note, ...]:
    """Says which columns of a request, all different, were in training but are not used."""
    if len(names) == len(columns.names):
        return ()
    unused = [plain(name) for name in names if name in columns.ignored]
    text = f"ignored, for the model does not use them: {some_of(unused)}"
    return (Note("unused_columns", text, cells=len(unused)),) if unused else ()


def check_count(n_rows: int, limits: RowLimits) -> None:
    """Refuses no rows, and more than there may be.

    Raises:
        RequestError: So it is.
        ForAnotherThread: They are too many for this one.
    """
    if n_rows == 0:
        raise RequestError(
            422, "no_rows", "a request must have at least one row, got none; send some"
        )
    check_most(n_rows, limits)


def check_most(n_rows: int, limits: RowLimits) -> None:
    """Refuses more rows than there may be.

    To be asked once a body is decoded, whose cost its bytes bound, and before anything is done for
    each row or cell, whose number they do not.

    Raises:
        RequestError: So it is.
        ForAnotherThread: They are too many for this one.
    """
    if n_rows > limits.most:
        raise RequestError(
            422,
            "too_many_rows",
            f"a request must have at most {limits.most} rows, got {n_rows}; send several requests, "
            "or score the table with `python -m ray_jobs.predict`",
        )
    if n_rows > limits.here:
        raise ForAnotherThread


def read_cells(columns: Columns, cells: Sequence[Sequence[Any]], *, lenient: bool = False) -> Cells:
    """Reads cells by what their columns hold.

    Args:
        columns: The model's columns.
        cells: The N cells of each column, in the order of `columns.ordered`.
        lenient: As MLflow's server does.

    Raises:
        RequestError: Cells cannot be read; it names their rows and columns.
    """
    split = len(columns.numeric)
    problems = Problems()
    numbers = _numbers(columns.numeric, cells[:split], len(cells[0]), lenient, problems)
    texts = [
        _texts(name, column, lenient, problems)
        for name, column in zip(columns.categorical, cells[split:], strict=True)
    ]
    problems.raise_any()
    return Cells(numbers, texts)


def _numbers(
    names: Sequence[str],
    columns: Sequence[Sequence[Any]],
    n_rows: int,
    lenient: bool,
    problems: Problems,
) -> np.ndarray:
    flat = list(chain.from_iterable(columns))
    if set(map(type, flat)) <= (_LENIENT if lenient else _STRICT):
        with suppress(OverflowError, ValueError):
            numbers = np.array(flat, dtype=np.float64)
            if np.isfinite(numbers).all() or _only_gaps(numbers, flat, lenient):
                return np.ascontiguousarray(numbers.reshape(len(names), n_rows).T)
    numbers = np.full((n_rows, len(names)), np.nan)
    for place, (name, column) in enumerate(zip(names, columns, strict=True)):
        for row, cell in enumerate(column):
            try:
                numbers[row, place] = _number(cell, lenient)
            except RequestError as error:
                message = f"column `{plain(name)}` {error.message}"
                problems.add(error.code, message, row=row, field=name)
        if problems.full:
            break
    return numbers


def _only_gaps(numbers: np.ndarray, cells: list[Any], lenient: bool) -> bool:
    """Tells whether what is no number is a gap: null, or NaN as well when lenient."""
    gaps = int(np.isnan(numbers).sum())
    return not np.isinf(numbers).any() and (lenient or gaps == cells.count(None))


def _number(cell: Any, lenient: bool) -> float:
    if cell is None:
        return math.nan
    if lenient and isinstance(cell, str) and cell.strip() in MISSING_TEXTS:
        return math.nan
    if type(cell) in _STRICT or (lenient and isinstance(cell, (bool, str))):
        with suppress(OverflowError, ValueError):
            number = float(cell)
            if math.isfinite(number) or (lenient and math.isnan(number)):
                return number
            raise RequestError(
                422,
                "not_finite",
                f"must hold finite numbers, got {number}; send null where there is no value",
            )
    raise RequestError(
        422,
        "wrong_type",
        f"must hold numbers, got {shown(cell)}; send a number, or null where there is no value",
    )


def _texts(
    name: str, column: Sequence[Any], lenient: bool, problems: Problems
) -> Sequence[str | None]:
    kinds = set(map(type, column))
    if kinds <= {str, type(None)}:
        return column
    if not kinds <= _LENIENT:
        for row, cell in enumerate(column):
            if type(cell) not in _LENIENT:
                problems.add(
                    "wrong_type",
                    f"column `{plain(name)}` must hold categories, got {shown(cell)}; send text, a "
                    "number or a boolean, or null where there is no value",
                    row=row,
                    field=name,
                )
        return [None] * len(column)
    texts: list[str | None] = []
    for row, cell in enumerate(column):
        if isinstance(cell, float) and not math.isfinite(cell):
            if not (lenient and math.isnan(cell)):
                problems.add(
                    "not_finite",
                    f"column `{plain(name)}` must hold categories, got {cell}; send null where "
                    "there is no value",
                    row=row,
                    field=name,
                )
            texts.append(None)
        else:
            texts.append(cell if cell is None or isinstance(cell, str) else _level(cell))
    return texts


def _level(cell: bool | int | float) -> str:
    try:
        return level_text(cell)
    except ValueError:  # an integer of more digits than Python turns into text
        return "a number of too many digits"
