"""How a cell is written, and what a text spells: the one place where the two meet.

Nothing here knows of a column. A typed cell, from Parquet or JSON, has a spelling, as a program
would write it to CSV; a text spells a number, a truth value, a gap, or only itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np

# fmt: off
GAP_WORDS = frozenset({
    "", "?", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan",
    "None", "NULL", "null", "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN",
})
# fmt: on
"""Texts that stand for no value, unless a column has them as levels: of pandas, and UCI's `?`.

As often as not a table was written by a program for which `None` and `NA` mean "no value".
"""

PLAIN_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_PLAIN_NUMBER = re.compile(PLAIN_NUMBER)
_CODE = re.compile(r"[+-]?0[0-9]")
_MINUS = str.maketrans({"\u2212": "-", "\u2012": "-", "\u2013": "-"})
_TRUTHS = {"true": True, "false": False}
# No number is written longer; a longer text need not be looked at.
LONGEST_NUMBER = 400
# Below, every whole number is a float of its own, of 64 and of 32 bits.
EXACT_DOUBLE = 2**53
EXACT_SINGLE = 2**24
_FOLDED_GAPS = frozenset(word.casefold() for word in GAP_WORDS)


def tidy(text: str) -> str:
    """Returns a text without blanks around it, in Unicode's composed form."""
    return text if text.isascii() and text == text.strip() else _composed(text)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip("\ufeff\u200b \t\r\n\v\f\u00a0\u202f\u2007")


def spelled(cell: Any) -> str:
    """Returns how a cell that has a value is written: 1 and 1.0 are both `1`."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, (bool, np.bool_)):
        return "True" if cell else "False"
    if isinstance(cell, (float, np.floating)):
        # A short float is spelled as itself: float32's 0.1 is 0.1, not 0.10000000149.
        most = EXACT_SINGLE if isinstance(cell, (np.float32, np.float16)) else EXACT_DOUBLE
        whole = abs(float(cell)) < most and float(cell).is_integer()
        return str(int(cell)) if whole else str(cell)
    if isinstance(cell, (int, np.integer)):
        return _digits(int(cell))
    if isinstance(cell, Decimal):
        return format(cell, "f") if abs(cell.adjusted()) < LONGEST_NUMBER else str(cell)
    if isinstance(cell, date):  # datetimes are dates
        return cell.isoformat()
    return str(cell)


def _digits(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # more digits than Python turns into text
        return hex(number)


def number_in(text: str) -> Decimal | None:
    """Returns the number that a tidy text spells plainly, exactly; None where it spells none."""
    if len(text) > LONGEST_NUMBER or not text or text[-1] not in "0123456789.":
        return None
    text = text.translate(_MINUS) if not text.isascii() else text
    return Decimal(text) if _PLAIN_NUMBER.fullmatch(text) else None


def truth_in(text: str) -> bool | None:
    """Returns the truth value that a tidy text spells, in letters of any case; None for none."""
    return _TRUTHS.get(text.casefold()) if len(text) <= 5 else None


def meant_names(given: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Finds the columns that are meant by names with blanks around them.

    Args:
        given: The names of a table's or a request's columns.
        known: The names that are looked for, which may have blanks around them too.

    Returns:
        The known name by the given one, where these differ and no other name could be meant.
    """
    given, known = set(given), set(known)
    absent: dict[str, list[str]] = {}
    for name in known - given:
        absent.setdefault(tidy(name), []).append(name)
    others: dict[str, list[str]] = {}
    for name in given - known:
        others.setdefault(tidy(name), []).append(name)
    return {
        others[key][0]: names[0]
        for key, names in absent.items()
        if len(names) == 1 and len(others.get(key, ())) == 1
    }


def is_code(text: str) -> bool:
    """Tells whether a tidy text is written as no number is: with a zero before other digits."""
    return _CODE.match(text) is not None


def is_gap(text: str) -> bool:
    """Tells whether a text among numbers stands for no value, in letters of any case."""
    return len(text) <= 12 and tidy(text).casefold() in _FOLDED_GAPS
