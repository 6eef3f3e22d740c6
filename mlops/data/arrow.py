"""Arrow's columns as pandas has them, without losing what a cell is."""

from __future__ import annotations

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

    Of a dictionary only what some row has is made, once: it may be long, and its texts too.
    """
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([_compact(chunk) for chunk in column.chunks], column.type)
        if pa.types.is_string_view(column.type.value_type):
            column = column.cast(pa.dictionary(column.type.index_type, pa.large_string()))
        return column.combine_chunks().to_pandas() if column.num_chunks else column.to_pandas()
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    mapper = _WITH_GAPS.get if column.null_count else None
    return column.to_pandas(types_mapper=mapper)


def pandas_frame(table: pa.Table) -> pd.DataFrame:
    """Converts every column of a table."""
    columns = {name: pandas_column(table[name]) for name in table.column_names}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(table)), copy=False)


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
