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
import pyarrow.compute as pc

from mlops.data.columns import level_text
from mlops.errors import RequestError
from mlops.serving.cells import (
    MOST_DETAILS,
    Cells,
    Problems,
    RowLimits,
    check_count,
    check_names,
    plain,
)
from mlops.tracking.pyfunc import probability_columns

if TYPE_CHECKING:
    from mlops.serving.predictor import Columns, ServedModel

# Record batches and dictionaries of a stream; each is validated with all that it refers to.
MOST_PIECES = 256


def read_arrow(body: bytes, columns: Columns, limits: RowLimits) -> Cells:
    """Reads an IPC stream to cells.

    A null is a gap; NaN is refused, as in JSON.

    Raises:
        RequestError: It cannot be read; it says all that is wrong, up to a number.
    """
    table = _read_table(body, columns, limits)
    numbers = np.empty((len(table), len(columns.numeric)))
    for place, name in enumerate(columns.numeric):
        numbers[:, place] = _numbers(table[name])
    if not np.isfinite(numbers).all():
        _check_gaps(columns.numeric, table, numbers)
    return Cells(numbers, [_texts(table[name]) for name in columns.categorical])


def write_arrow(model: ServedModel, labels: list[Any], probabilities: np.ndarray) -> bytes:
    """Writes predictions as a stream: `label`, and `probability_<class>` for each class.

    The schema's metadata says under `model` which model gave them.
    """
    names = probability_columns(model.classes)
    arrays = [pa.array(labels), *(pa.array(column) for column in probabilities.T)]
    metadata = {"model": msgspec.json.encode(model.identity)}
    fields = [
        pa.field(name, array.type) for name, array in zip(["label", *names], arrays, strict=True)
    ]
    batch = pa.record_batch(arrays, schema=pa.schema(fields, metadata=metadata))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())


def _read_table(body: bytes, columns: Columns, limits: RowLimits) -> pa.Table:
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as stream:
            _check_schema(stream.schema, columns)
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
            return pa.Table.from_batches(batches, stream.schema)
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
    numeric = set(columns.numeric)
    for field in schema:
        if field.name not in columns.known:
            continue
        fits, wanted = (
            (_is_number, "an integer or floating type")
            if field.name in numeric
            else (_is_category, "utf8, a dictionary of utf8, bool or an integer type")
        )
        if not (fits(field.type) or pa.types.is_null(field.type)):
            problems.add(
                "wrong_type",
                f"column `{plain(field.name)}` must be of {wanted}, got "
                f"{plain(str(field.type))}; cast it",
                field=field.name,
            )
    problems.raise_any()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_category(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return _is_text(kind) or bool(pa.types.is_boolean(kind)) or bool(pa.types.is_integer(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    if not pa.types.is_float64(column.type):
        column = column.cast(pa.float64(), safe=False)
    numbers: np.ndarray = column.to_numpy(zero_copy_only=False)
    return numbers


def _check_gaps(names: Sequence[str], table: pa.Table, numbers: np.ndarray) -> None:
    """Refuses cells that are neither finite nor null."""
    problems = Problems()
    for name, column in zip(names, numbers.T, strict=True):
        present = table[name].is_valid().to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(present & ~np.isfinite(column))[:MOST_DETAILS]:
            problems.add(
                "not_finite",
                f"column `{plain(name)}` must hold finite numbers, got {column[row]}; send null "
                "where there is no value",
                row=int(row),
                field=name,
            )
    problems.raise_any()


def _texts(column: pa.ChunkedArray) -> Sequence[str | None]:
    if _is_text(column.type):
        return list(column.to_pylist())
    if pa.types.is_dictionary(column.type):
        # By way of the codes: a text that many rows share is made once, one of no row never.
        texts: list[str | None] = []
        for chunk in column.chunks:
            used = pc.unique(chunk.indices.drop_null())
            levels = chunk.dictionary.take(used).to_pylist()
            text_of = dict(zip(used.to_pylist(), levels, strict=True))
            texts += [text_of.get(code) for code in chunk.indices.to_pylist()]
        return texts
    return [None if cell is None else level_text(cell) for cell in column.to_pylist()]


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
