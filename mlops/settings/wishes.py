"""What users say of the columns of their table, by name or by pattern."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal

Wish = Literal[
    "numeric",
    "categorical",
    "date",
    "day_first",
    "month_first",
    "decimal_comma",
    "decimal_point",
    "drop",
    "keep",
]
# Of a column that stays text until it is known how it is to be read.
OF_TEXT: frozenset[Wish] = frozenset(
    {"categorical", "date", "day_first", "month_first", "decimal_comma", "decimal_point"}
)


def wish_for(name: str, wishes: Mapping[str, Wish]) -> Wish | None:
    """Returns what is wished of a column: by its name, or else by the first pattern it fits."""
    if name in wishes:
        return wishes[name]
    return next((wish for pattern, wish in wishes.items() if fits(name, pattern)), None)


def fits(name: str, pattern: str) -> bool:
    """Tells whether a column is meant by a name or a pattern such as `b*`."""
    return name == pattern or fnmatchcase(name, pattern)
