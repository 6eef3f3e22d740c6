"""Arrow's columns as pandas has them."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_EXACT = 2**53


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Makes a frame of a table, see `series_of`."""
    columns = {name: series_of(table[name]) for name in table.column_names}
    return pd.DataFrame(columns, copy=False)


def series_of(column: pa.ChunkedArray) -> pd.Series:
    """Makes a pandas column that holds what the Arrow column does.

    Text of any kind is `str`, dictionaries are categories where pandas can have them; whole
    numbers with gaps are floats unless that would change one, then objects.
    """
    column = _plain(column)
    as_objects = pa.types.is_integer(column.type) and column.null_count > 0 and not _fits(column)
    series = column.to_pandas(integer_object_nulls=as_objects)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return series.astype("str")
    return series


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    type_ = column.type
    if isinstance(type_, pa.BaseExtensionType):
        storage = [chunk.storage for chunk in column.chunks]
        return _plain(pa.chunked_array(storage, type_.storage_type))
    if pa.types.is_run_end_encoded(type_):
        decoded = [pc.run_end_decode(chunk) for chunk in column.chunks]
        return _plain(pa.chunked_array(decoded, type_.value_type))
    if pa.types.is_dictionary(type_):
        if _is_level(type_.value_type) and all(map(_is_sound, column.chunks)):
            return column
        decoded = [_decoded(chunk) for chunk in column.chunks]
        return _plain(pa.chunked_array(decoded, type_.value_type))
    if pa.types.is_string_view(type_):
        return column.cast(pa.large_string())
    if pa.types.is_binary_view(type_):
        return column.cast(pa.large_binary())
    return column


def _decoded(chunk: pa.DictionaryArray) -> pa.Array:
    return chunk.dictionary.take(chunk.indices)


def _is_level(type_: pa.DataType) -> bool:
    of = pa.types
    kinds = (of.is_string, of.is_large_string, of.is_boolean, of.is_integer, of.is_floating)
    return any(is_kind(type_) for is_kind in kinds)


def _is_sound(chunk: pa.DictionaryArray) -> bool:
    """Tells whether pandas takes the levels for categories: all different, none missing."""
    levels = chunk.dictionary
    return bool(levels.null_count == 0 and pc.count_distinct(levels).as_py() == len(levels))


def _fits(column: pa.ChunkedArray) -> bool:
    ends = pc.min_max(column).as_py()
    return all(end is None or abs(end) <= _EXACT for end in ends.values())
