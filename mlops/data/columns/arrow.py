"""Arrow's columns as pandas has them, without losing what a cell is."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_WITH_GAPS = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


def pandas_column(column: pa.ChunkedArray) -> pd.Series:
    """Converts a column: whole numbers and booleans stay what they are beside gaps.

    Text of any kind is `str`, dictionaries are categories where pandas can have them. Of a
    dictionary only what some row has is made, once: it may be long, and its texts too.
    """
    column = _plain(column)
    if pa.types.is_dictionary(column.type):
        return column.combine_chunks().to_pandas() if column.num_chunks else column.to_pandas()
    if pa.types.is_string(column.type):
        column = column.cast(pa.large_string())
    mapper = _WITH_GAPS.get if column.null_count else None
    return column.to_pandas(types_mapper=mapper)


def pandas_frame(table: pa.Table) -> pd.DataFrame:
    """Converts every column of a table."""
    columns = {name: pandas_column(table[name]) for name in table.column_names}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(table)), copy=False)


@lru_cache
def is_plain(kind: pa.DataType) -> bool:
    """Tells whether cells of a type are single values: no lists, no bytes."""
    types = pa.types
    if types.is_dictionary(kind):
        return is_plain(kind.value_type)
    is_bytes = (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )
    return not (types.is_nested(kind) or is_bytes or isinstance(kind, pa.BaseExtensionType))


def _compact(chunk: pa.DictionaryArray) -> Any:
    used = pc.unique(chunk.indices.drop_null())
    indices = pc.index_in(chunk.indices, used).cast(chunk.type.index_type)
    return pa.DictionaryArray.from_arrays(indices, chunk.dictionary.take(used))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    type_ = column.type
    if isinstance(type_, pa.BaseExtensionType):
        storage = [chunk.storage for chunk in column.chunks]
        return _plain(pa.chunked_array(storage, type_.storage_type))
    if pa.types.is_run_end_encoded(type_):
        decoded = [pc.run_end_decode(chunk) for chunk in column.chunks]
        return _plain(pa.chunked_array(decoded, type_.value_type))
    if pa.types.is_dictionary(type_):
        column = pa.chunked_array([_compact(chunk) for chunk in column.chunks], type_)
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
