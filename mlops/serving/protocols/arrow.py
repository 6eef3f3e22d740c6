"""Arrow IPC streams: what a client with a table sends, and gets back.

A stream from outside is not to be trusted with memory: compressed buffers may unfold to any size,
and offsets may point anywhere. So compressed streams are refused before they are unfolded, only
plain types are taken, and every batch is validated before a cell of it is read.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from mlops.data.cells.spelling import meant_names
from mlops.data.columns.arrow import is_plain, pandas_column
from mlops.data.columns.kinds import texts_of
from mlops.data.notes import Tally
from mlops.errors import RequestError
from mlops.serving.rows.cells import (
    MOST_DETAILS,
    Cells,
    Problems,
    RowLimits,
    check_count,
    check_names,
    plain,
    shown,
)

if TYPE_CHECKING:
    from mlops.serving.champion.predictor import ServedModel
    from mlops.serving.rows.columns import Columns

# Record batches and dictionaries of a stream; each is validated with all that it refers to.
MOST_PIECES = 256
# Types whose numbers are read as numpy makes float64 of them, which takes a tenth of the time.
_DOUBLES = frozenset({pa.float64(), pa.int64(), pa.int32()})


def read_arrow(body: bytes, columns: Columns, limits: RowLimits) -> Cells:
    """Reads an IPC stream to cells.

    A null is a gap; NaN is refused, as in JSON.

    Raises:
        RequestError: It cannot be read; it says all that is wrong, up to a number.
    """
    table = _read_table(body, columns, limits)
    problems = Problems()
    numbers = _numbers(table, columns, problems)
    times = []
    for date in columns.dates:
        of_date, odd = date.read(pandas_column(table[date.name]).array)
        times.append(of_date)
        for row in odd[:MOST_DETAILS].tolist():
            problems.add(
                "wrong_type",
                f"column `{plain(date.name)}` must hold dates, got "
                f"{shown(str(table[date.name][row].as_py()))}; send times, or null where there is "
                "no value",
                row=row,
                field=date.name,
            )
    problems.raise_any()
    texts = [_texts(name, pandas_column(table[name]).array) for name in columns.categorical]
    return Cells(numbers, texts, Tally(), times)


def write_arrow(model: ServedModel, predictions: np.ndarray) -> bytes:
    """Writes predictions as a stream: `label`, and `probability_<class>` for each class.

    The schema's metadata says under `model` which model gave them.
    """
    answers = pa.array(model.task.answers(predictions))
    arrays = [answers, *(pa.array(column) for column in predictions.T)]
    metadata = {"model": msgspec.json.encode(model.identity)}
    fields = [
        pa.field(name, array.type) for name, array in zip(model.task.columns, arrays, strict=True)
    ]
    batch = pa.record_batch(arrays, schema=pa.schema(fields, metadata=metadata))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())


def _read_table(body: bytes, columns: Columns, limits: RowLimits) -> pa.Table:
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as stream:
            meant = meant_names(stream.schema.names, columns.known)
            names = [meant.get(name, name) for name in stream.schema.names]
            _check_schema(pa.schema(list(map(pa.field, names, stream.schema.types))), columns)
            _check_messages(body)
            batches = []
            n_rows = 0
            for batch in stream:
                n_rows += batch.num_rows
                if n_rows > limits.most:
                    break
                batch.validate(full=True)
                batches.append(batch)
            check_count(n_rows, limits)
            return pa.Table.from_batches(batches, stream.schema).rename_columns(names)
    except (pa.ArrowException, OSError, MemoryError, EOFError, UnicodeDecodeError) as error:
        raise RequestError(
            400,
            "not_arrow",
            f"a body must be an Arrow IPC stream, got none ({plain(str(error))}); write it with "
            "pyarrow.ipc.new_stream",
        ) from error


def _check_schema(schema: pa.Schema, columns: Columns) -> None:
    problems = Problems()
    check_names(schema.names, columns, problems)
    for name in sorted(name for name, times in Counter(schema.names).items() if times > 1):
        problems.add(
            "extra_column", f"column names must differ, got `{plain(name)}` twice", field=name
        )
    for field in schema:
        if field.name in columns.known and not is_plain(field.type):
            problems.add(
                "wrong_type",
                f"column `{plain(field.name)}` must be of numbers, text, booleans or times, got "
                f"{plain(str(field.type))}; cast it",
                field=field.name,
            )
    problems.raise_any()


def _numbers(table: pa.Table, columns: Columns, problems: Problems) -> np.ndarray:
    """Reads the numeric columns: [N, k] float64, NaN for a gap."""
    numbers = np.full((len(table), len(columns.numeric)), np.nan)
    for place, name in enumerate(columns.numeric):
        cells = table[name]
        if cells.type in _DOUBLES and not cells.null_count:
            numbers[:, place] = cells.to_numpy()
    numbers = columns.rounded(numbers)
    # Any other column, and one with a cell that may have to be refused, as a file's is read.
    finite = np.isfinite(numbers)
    for place in [] if finite.all() else np.flatnonzero(~finite.all(axis=0)).tolist():
        column = columns.numbers[place]
        cells = table[column.name]
        numbers[:, place], odd = column.read(pandas_column(cells).array)
        _check_gaps(column.name, cells, numbers[:, place], odd, problems)
    return numbers


def _texts(name: str, cells: Any) -> Sequence[str | None]:
    codes, texts = texts_of(name, cells)
    named: list[str | None] = [*texts, None]
    return [named[code] for code in codes.tolist()]


def _check_gaps(
    name: str, column: pa.ChunkedArray, numbers: np.ndarray, odd: np.ndarray, problems: Problems
) -> None:
    """Refuses cells that are neither a finite number nor null."""
    bad = np.flatnonzero(np.isnan(numbers))
    if len(bad):
        present = column.is_valid().to_numpy(zero_copy_only=False)
        for row in bad[present[bad]][:MOST_DETAILS].tolist():
            cell = column[row].as_py()
            is_text = row in odd and not isinstance(cell, float)
            wanted = "numbers" if is_text else "finite numbers"
            if not (isinstance(cell, str) and row not in odd):
                problems.add(
                    "wrong_type" if is_text else "not_finite",
                    f"column `{plain(name)}` must hold {wanted}, got {shown(cell)}; send null "
                    "where there is no value",
                    row=row,
                    field=name,
                )


def _check_messages(body: bytes) -> None:
    """Refuses a stream with compressed buffers or of very many pieces, without reading a buffer."""
    pieces = 0
    for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(body)):
        if message.type not in ("record batch", "dictionary"):
            continue
        pieces += 1
        if pieces > MOST_PIECES:
            raise RequestError(
                422,
                "too_many_batches",
                f"an Arrow stream must have at most {MOST_PIECES} batches and dictionaries, got "
                "more; write it with table.combine_chunks()",
            )
        if _is_compressed(message):
            raise RequestError(
                422,
                "compressed",
                "an Arrow stream must not be compressed, nor its batches have metadata, got one "
                "that is or has; write it with compression=None",
            )


def _is_compressed(message: Any) -> bool:
    """Looks for `compression` in a message's metadata, a flatbuffer.

    See Message.fbs of Arrow's format: `header` is field 2 of Message, `custom_metadata` field 4,
    where Arrow 0.17 names a compression; a RecordBatch has `compression` as field 3, and a
    DictionaryBatch the batch as field 1.
    """
    data = bytes(message.metadata)
    try:
        if _field(data, _root(data), 4) != 0:
            return True
        header = _field(data, _root(data), 2)
        if header and message.type == "dictionary":
            header = _field(data, header, 1)
        return header != 0 and _field(data, header, 3) != 0
    except struct.error as error:
        raise pa.ArrowInvalid("a message of the stream is damaged") from error


def _root(data: bytes) -> int:
    return int(struct.unpack_from("<I", data)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Returns where a table's field points to, 0 where it has none."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0 or 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
    if not offset:
        return 0
    place = table + offset
    return int(place + struct.unpack_from("<I", data, place)[0])
