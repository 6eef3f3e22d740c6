"""Rows of typed values, as JSON and workbooks hold them, made columns of one type each.

A column of one kind keeps it exactly; whole and broken numbers make a column of broken ones unless
that would change one, whole ones beyond 64 bits are decimals. A column of several kinds is text:
each cell as JSON spells it. So the type depends on all of the rows, which are read twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa

from mlops.data.columns.arrow import pandas_frame
from mlops.errors import TableError

TypedRow = dict[str, Any]

ROWS_AT_A_TIME = 2**13
_EXACT = 2**53  # whole numbers up to it are floats too
_KINDS: dict[type, str] = {
    bool: "boolean",
    float: "float",
    str: "text",
    datetime: "time",
    date: "time",
    timedelta: "duration",
}
_TYPES: dict[frozenset[str], pa.DataType] = {
    frozenset({"boolean"}): pa.bool_(),
    frozenset({"whole"}): pa.int64(),
    frozenset({"float"}): pa.float64(),
    frozenset({"whole", "float"}): pa.float64(),
    frozenset({"time"}): pa.timestamp("us"),
    frozenset({"duration"}): pa.duration("us"),
}


class TypedRowsFile:
    """A file of typed rows, which are read anew at each call; how is for the kind of file to say.

    Attributes:
        schema: The columns.
        n_rows: Number of rows.
        decimal: The likelier decimal sign of numbers that are text.
    """

    schema: pa.Schema
    n_rows: int | None
    decimal = "."

    def tables(self, names: Sequence[str]) -> Iterator[tuple[pa.Table, float]]:
        """Returns rows of the columns named, and the share read by then."""
        return chosen_tables(self._rows(), self.schema, names, self.n_rows)

    def frame(self, is_text: Callable[[str], bool] | None = None) -> pd.DataFrame:
        """Reads the whole table."""
        return pandas_frame(
            pa.concat_tables([self.schema.empty_table(), *tables_of(self._rows(), self.schema)])
        )

    def _rows(self) -> Iterator[TypedRow]:
        raise NotImplementedError


def schema_of(rows: Iterable[TypedRow], names: Sequence[str] = ()) -> tuple[pa.Schema, int]:
    """Finds the columns of all rows and their types.

    Args:
        rows: The rows; a key missing, or None, is a gap.
        names: Columns that are there in any case, the first ones.

    Returns:
        The schema, and the number of rows.
    """
    kinds: dict[str, set[str]] = {name: set() for name in names}
    n_rows = 0
    for row in rows:
        n_rows += 1
        for name, value in row.items():
            found = kinds.setdefault(name, set())
            if isinstance(value, (list, dict)):
                raise TableError(
                    f"column `{name}` must hold one value in a cell, got a list or an object; turn "
                    "it into columns, or leave it out of the file"
                )
            if value is not None:
                found.add(_kind_of(value))
    return pa.schema([(name, _type_of(found)) for name, found in kinds.items()]), n_rows


def tables_of(rows: Iterable[TypedRow], schema: pa.Schema) -> Iterator[pa.Table]:
    """Makes tables of a schema that `schema_of` has found for the rows."""
    makers = [(field.name, field.type, _maker(field.type)) for field in schema]
    pending: list[TypedRow] = []

    def table() -> pa.Table:
        columns = [
            pa.array([make(row.get(name)) for row in pending], type_)
            for name, type_, make in makers
        ]
        return pa.Table.from_arrays(columns, schema=schema)

    for row in rows:
        pending.append(row)
        if len(pending) == ROWS_AT_A_TIME:
            yield table()
            pending = []
    if pending:
        yield table()


def chosen_tables(
    rows: Iterable[TypedRow], schema: pa.Schema, names: Sequence[str], n_rows: int | None
) -> Iterator[tuple[pa.Table, float]]:
    """Makes tables of some columns, and tells what share of the rows has been read."""
    done = 0
    for table in tables_of(rows, pa.schema([schema.field(name) for name in names])):
        done += len(table)
        yield table, done / max(1, n_rows or 0)


def _kind_of(value: Any) -> str:
    if type(value) is int:
        if abs(value) <= _EXACT:
            return "whole"
        if -(2**63) <= value < 2**63:
            return "long"
        return "huge" if abs(value) < 10**76 else "text"
    return _KINDS.get(type(value), "text")


def _type_of(kinds: set[str]) -> pa.DataType:
    if not kinds:
        return pa.null()
    if kinds <= {"whole", "long"}:
        return pa.int64()
    if kinds <= {"whole", "long", "huge"}:
        return pa.decimal256(76, 0)
    return _TYPES.get(frozenset(kinds), pa.string())


def _maker(type_: pa.DataType) -> Callable[[Any], Any]:
    if type_ == pa.string():
        return _as_text
    if pa.types.is_decimal(type_):
        return lambda value: None if value is None else Decimal(value)
    if type_ == pa.float64():
        return lambda value: None if value is None else float(value)
    if type_ == pa.timestamp("us"):
        return _as_time
    return lambda value: value


def _as_time(value: Any) -> Any:
    is_date = isinstance(value, date) and not isinstance(value, datetime)
    return datetime.combine(value, time()) if is_date else value


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
