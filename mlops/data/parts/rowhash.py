"""Row hashes: what a row holds, as 64 bits, the same on every machine."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

from mlops.data.cells.spelling import GAP_WORDS

# What is mixed at a time stays in a core's cache.
_BLOCK = 1 << 14
_TRUTHS = {"true": "1", "false": "0"}
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_DATES = np.uint64(0x6461746573)  # keeps dates apart from numbers


def row_hashes(frame: pd.DataFrame) -> np.ndarray:
    """Hashes what each row holds: equal rows alike, unequal ones differently, but for 2^-64.

    A number counts as float32, a category by its text, a date by its microseconds. How a column
    is stored or taken does not count, as far as its cells stay the same: 1, 1.0, `1`, `01` and
    `true` are one value. The order of the columns does not count either, their names do.

    A gap adds nothing, so a column that was empty so far may be there or not. A column that is the
    same in every row does count, as any added column does: left out, it would change every row's
    hash on the day that another value comes in, and the rows of a table that grows must keep
    theirs.

    Args:
        frame: Columns of numbers, categories, dates or text: [N rows].

    Returns:
        [N] uint64.
    """
    total = np.zeros(len(frame), dtype=np.uint64)
    for place, name in enumerate(frame.columns):
        _add_column(total, frame.iloc[:, place], np.uint64(_text_value(_tidy(str(name)))))
    return scattered(total)


def text_hashes(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Hashes cells as the texts that they are: `7` and 7.0 alike, `007` apart, digits all kept.

    Args:
        column: A column as read: [N].

    Returns:
        hashes: [N] uint64.
        gaps: Where a cell has no value: [N] bool.
    """
    codes, uniques = _levels(column)
    texts = [_tidy(_plain(unique)) for unique in uniques]
    table = np.array([*map(_text_value, texts), 0], dtype=np.uint64)
    gaps = np.array([*(text in GAP_WORDS for text in texts), True])
    return scattered(table)[codes], gaps[codes]


def repeats(*keys: np.ndarray) -> np.ndarray:
    """Counts how many rows with the same keys come before each: [N] int64."""
    order = np.lexsort(keys)
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.any([key[order[1:]] != key[order[:-1]] for key in keys], axis=0)
    places = np.arange(len(order))
    before = np.empty(len(order), dtype=np.int64)
    before[order] = places - np.maximum.accumulate(np.where(first, places, 0))
    return before


def scattered(values: np.ndarray) -> np.ndarray:
    """Maps 64 bits to 64 bits one to one, so that near values are far apart (splitmix64's end)."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(27)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _add_column(total: np.ndarray, column: pd.Series, key: np.uint64) -> None:
    """Adds a column's part to the hashes, mod 2^64: `total` [N] uint64."""
    if is_numeric_dtype(column.dtype) and not is_bool_dtype(column.dtype):
        _add_numbers(total, column, key)
    elif is_datetime64_any_dtype(column.dtype):
        dates = column.to_numpy(dtype="datetime64[us]")
        mixed = _mixed(dates.view(np.uint64) ^ _DATES, key)
        mixed[np.isnat(dates)] = 0
        total += mixed
    else:
        codes, uniques = _levels(column)
        texts = [_tidy(str(unique)) for unique in uniques]
        values = np.array([_value(text) for text in texts], dtype=np.uint64)
        mixed = _mixed(values, key)
        mixed[[text in GAP_WORDS for text in texts]] = 0
        total += np.append(mixed, np.uint64(0))[codes]


def _add_numbers(total: np.ndarray, column: pd.Series, key: np.uint64) -> None:
    if isinstance(column.dtype, np.dtype):
        numbers = column.to_numpy()
    else:
        numbers = column.array.to_numpy(dtype=np.float64, na_value=np.nan)
    for start in range(0, len(numbers), _BLOCK):
        piece = numbers[start : start + _BLOCK]
        if piece.dtype.kind in "iu":
            piece = piece.astype(np.float64)  # rounded as where a file is read as floats
        bits = _bits(piece)
        mixed = _mixed(bits, key)
        gaps = np.isnan(bits.view(np.float32))
        if gaps.any():
            mixed[gaps] = 0
        total[start : start + _BLOCK] += mixed


def _mixed(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """Mixes values of a column with its key: [N] uint64; what is summed is scattered once more."""
    mixed = values.astype(np.uint64)
    mixed += key
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(32)
    mixed *= _SECOND
    return mixed


def _bits(numbers: np.ndarray) -> np.ndarray:
    """Returns numbers as the bits of float32, -0.0 as 0.0: [N] uint32."""
    with np.errstate(over="ignore", invalid="ignore"):
        singles = numbers.astype(np.float32)
    singles += np.float32(0)
    return singles.view(np.uint32)


def _levels(column: pd.Series) -> tuple[np.ndarray, Iterable[Any]]:
    """Returns codes, -1 for a gap, and what they stand for."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(), column.cat.categories
    codes, uniques = pd.factorize(column.array)
    return codes, uniques


def _value(text: str) -> int:
    """Returns 64 bits for a tidy text: those of the number or truth value that it spells."""
    text = _TRUTHS.get(text.casefold(), text)
    if text[-1:].isdigit() or text[-1:] == ".":
        try:
            return int(_bits(np.array([float(text)]))[0])
        except ValueError:
            pass
    return _text_value(text)


def _text_value(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def _plain(cell: Any) -> str:
    whole = isinstance(cell, (float, np.floating)) and float(cell).is_integer()
    return str(int(cell)) if whole else str(cell)


def _tidy(text: str) -> str:
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()
