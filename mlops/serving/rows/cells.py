"""The cells of a request, and what may be wrong with its rows and columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlops.data.notes import Tally
from mlops.errors import Detail, RequestError

if TYPE_CHECKING:
    from mlops.serving.rows.columns import Columns

MOST_DETAILS = 20
MOST_TEXT = 60
MOST_NAME = 1000


class Cells(NamedTuple):
    """The cells of N rows.

    Attributes:
        numbers: The numeric columns: [N, k] float64, NaN for a gap.
        texts: The N cells of each categorical column, as they are spelled; None for a gap.
        tally: Counts what is odd about them.
        times: The columns of dates: each [N] datetime64, NaT for a gap.
    """

    numbers: np.ndarray
    texts: list[Sequence[str | None]]
    tally: Tally
    times: Sequence[np.ndarray] = ()


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


def count_unused(cells: Mapping[str, int], columns: Columns, tally: Tally) -> None:
    """Counts the cells of columns that only the training table has, of those of each column."""
    if len(cells) > len(columns.names):
        for name in columns.ignored & cells.keys():
            tally.add("unused_column", name, cells[name])


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
