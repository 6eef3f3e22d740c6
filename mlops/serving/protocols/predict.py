"""The bodies of `POST /predict`: JSON, CSV and Arrow, read to cells.

    application/json                     {"rows": [{column: value, ...}, ...]}
                                         {"columns": {column: [value, ...], ...}}
    text/csv                             a line of column names, then a line a row
    application/vnd.apache.arrow.stream  an IPC stream; see `mlops.serving.protocols.arrow`

A row has every column of the model and no other; except that in JSON and CSV those are ignored that
the training table had besides, the target and what was left out, and the answer says so. What of a
row's cells is refused: `mlops.serving.rows.reading`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import msgspec

from mlops.data.cells.spelling import meant_names
from mlops.errors import RequestError
from mlops.serving.rows.cells import (
    Cells,
    Problems,
    RowLimits,
    check_count,
    check_names,
    count_unused,
    plain,
    shown,
)
from mlops.serving.rows.columns import Columns
from mlops.serving.rows.reading import read_cells

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"

LONGEST_CELL = 2**31 - 1  # the body's own limit is less

T = TypeVar("T")
_decode_any = msgspec.json.Decoder().decode


class Request(NamedTuple):
    """What a protocol needs of a request.

    Attributes:
        body: The whole body.
        content_type: The header, in lower case; empty where there is none.
        path: The path, decoded.
        limits: How many rows it may have.
        max_answer_bytes: Bytes that its answer may have.
    """

    body: bytes
    content_type: str
    path: str
    limits: RowLimits
    max_answer_bytes: int


def media_type(content_type: str) -> str:
    """Returns a content type without its parameters."""
    return content_type.partition(";")[0].strip()


def unsupported(content_type: str, supported: Sequence[str]) -> RequestError:
    """Returns the refusal of a body that is none of the supported types."""
    return RequestError(
        415,
        "unsupported_media_type",
        f"a body must be {', '.join(supported)}, got "
        f"{plain(content_type) or 'no content type'}; set the header Content-Type",
    )


def decode_json(body: bytes) -> Any:
    """Decodes JSON, and the `NaN` and `Infinity` that Python's encoder writes.

    Those are let through here so that the cell that holds one can be named.

    Raises:
        RequestError: The body is no JSON.
    """
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_any(body)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = plain(str(error))
        raise RequestError(
            400, "not_json", f"a body must be JSON, got none ({reason}); see /docs for an example"
        ) from error


def convert(value: Any, kind: type[T]) -> T:
    """Gives a decoded body its type.

    Raises:
        RequestError: It does not have the shape.
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise RequestError(
            422,
            "invalid_body",
            f"a body must have the documented shape, got: {plain(str(error))}; see /docs for an "
            "example",
        ) from error


def read_predict(request: Request, columns: Columns) -> Cells:
    """Reads a JSON or CSV body of `/predict`.

    Raises:
        RequestError: It cannot be read; it says all that is wrong, up to a number.
    """
    kind = media_type(request.content_type)
    if kind == JSON:
        return read_json(decode_json(request.body), columns, request.limits)
    if kind == CSV:
        names, cells = read_csv(request.body, columns, request.limits, ignore_others=False)
        read = read_cells(columns, cells, "text")
        count_unused(dict.fromkeys(names, len(cells[0])), columns, read.tally)
        return read
    raise unsupported(request.content_type, (JSON, CSV, ARROW))


def read_json(value: Any, columns: Columns, limits: RowLimits) -> Cells:
    """Reads `rows` or `columns`, whichever is given.

    Raises:
        RequestError: Neither or both are, or they cannot be read.
    """
    keys = list(value) if isinstance(value, dict) else []
    if keys == ["rows"] and isinstance(value["rows"], list):
        return _read_rows(value["rows"], columns, limits)
    if keys == ["columns"] and isinstance(value["columns"], dict):
        return _read_columns(value["columns"], columns, limits)
    got = ", ".join(f"`{plain(key)}`" for key in keys[:5]) or shown(value)
    raise RequestError(
        422,
        "invalid_body",
        'a body must be {"rows": [{column: value, ...}, ...]} or {"columns": {column: [value, '
        f"...], ...}}}}, got {got}; see /docs for an example",
    )


def _read_rows(rows: list[Any], columns: Columns, limits: RowLimits) -> Cells:
    check_count(len(rows), limits)
    width = len(columns.names)
    with suppress(KeyError, TypeError, IndexError):
        cells = columns.transposed(rows)
        if all(len(row) == width for row in rows):
            return read_cells(columns, cells)
    meant = _with_meant_names(rows, columns)
    if meant is not None:
        return _read_rows(meant, columns, limits)
    _check_rows(rows, columns)
    read = read_cells(columns, columns.transposed(rows))
    count_unused(Counter(chain.from_iterable(rows)), columns, read.tally)
    return read


def _with_meant_names(rows: list[Any], columns: Columns) -> list[Any] | None:
    """Takes the blanks around the names of columns away; None where there are none to take."""
    is_changed = False
    changed = []
    for row in rows:
        meant = meant_names(row, columns.known) if isinstance(row, dict) else {}
        is_changed |= bool(meant)
        changed.append({meant.get(key, key): cell for key, cell in row.items()} if meant else row)
    return changed if is_changed else None


def _check_rows(rows: list[Any], columns: Columns) -> None:
    """Refuses rows that are not all objects of the right columns.

    Raises:
        RequestError: There is one.
    """
    problems = Problems()
    for index, row in enumerate(rows):
        if problems.full:
            break
        if isinstance(row, dict):
            check_names(list(row), columns, problems, besides=columns.ignored, row=index)
        else:
            problems.add(
                "wrong_type",
                f"a row must be an object of a value for each column, got {shown(row)}; send "
                "{column: value, ...}",
                row=index,
            )
    problems.raise_any()


def _read_columns(given: dict[str, Any], columns: Columns, limits: RowLimits) -> Cells:
    problems = Problems()
    meant = meant_names(given, columns.known)
    given = {meant.get(name, name): column for name, column in given.items()}
    check_names(list(given), columns, problems, besides=columns.ignored)
    for name, column in given.items():
        if name in columns.known and not isinstance(column, list):
            problems.add(
                "wrong_type",
                f"column `{plain(name)}` must be a list of cells, got {shown(column)}; send one "
                "cell a row",
                field=name,
            )
    problems.raise_any()
    cells = [given[name] for name in columns.ordered]
    check_lengths(columns, cells)
    check_count(len(cells[0]), limits)
    read = read_cells(columns, cells)
    count_unused(dict.fromkeys(given, len(cells[0])), columns, read.tally)
    return read


def check_lengths(columns: Columns, cells: Sequence[Sequence[Any]]) -> None:
    """Refuses columns of several lengths.

    Raises:
        RequestError: So they are.
    """
    problems = Problems()
    for name, column in zip(columns.ordered, cells, strict=True):
        if len(column) != len(cells[0]):
            problems.add(
                "wrong_width",
                f"all columns must have as many cells as `{plain(columns.ordered[0])}`, "
                f"{len(cells[0])}, got {len(column)} in `{plain(name)}`; send one cell a row, null "
                "where there is no value",
                field=name,
            )
    problems.raise_any()


def read_csv(
    body: bytes, columns: Columns, limits: RowLimits, *, ignore_others: bool
) -> tuple[list[str], Sequence[Sequence[str]]]:
    """Takes a CSV table apart.

    Args:
        body: UTF-8, with or without a byte order mark.
        columns: The model's columns.
        limits: How many rows it may have.
        ignore_others: Whether the table may have any columns that the model does not.

    Returns:
        names: The names of its columns.
        cells: The cells of each column, in the order of `columns.ordered`.

    Raises:
        RequestError: It is no CSV, or its columns are not the model's.
    """
    csv.field_size_limit(LONGEST_CELL)  # of the process: the jobs' readers set it too
    try:
        text = io.StringIO(body.decode("utf-8-sig"))
        lines = [line for line in csv.reader(text, skipinitialspace=True, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(
            400,
            "not_csv",
            f"a body must be CSV in UTF-8, got none ({plain(str(error))}); mend it, or send JSON",
        ) from error
    names, rows = (lines[0], lines[1:]) if lines else ([], [])
    meant = meant_names(names, columns.known)
    names = [meant.get(name, name) for name in names]
    problems = Problems()
    twice = {name for name, times in Counter(names).items() if times > 1}
    for name in sorted(twice & (columns.known | columns.ignored)):
        problems.add(
            "extra_column",
            f"column names must differ, got `{plain(name)}` twice; drop one",
            field=name,
        )
    wanted = [name for name in names if name in columns.known] if ignore_others else names
    check_names(wanted, columns, problems, besides=columns.ignored)
    problems.raise_any()
    check_count(len(rows), limits)
    for index, row in enumerate(rows):
        if len(row) != len(names):
            problems.add(
                "wrong_width",
                f"a row must have as many cells as there are column names, {len(names)}, got "
                f"{len(row)}; leave a cell empty where there is no value",
                row=index,
            )
    problems.raise_any()
    table = list(zip(*rows, strict=True))
    places = {name: place for place, name in enumerate(names)}
    return names, [table[places[name]] for name in columns.ordered]
