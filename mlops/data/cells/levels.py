"""The spellings of a column's levels: one table, by which every reader finds the same one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeVar

from mlops.data.cells.spelling import GAP_WORDS, number_in, tidy, truth_in

K = TypeVar("K")

UNKNOWN: Final = -1
GAP: Final = -2
_SEVERAL: Final = -3


class Levels:
    """Finds the level that a text spells.

    A level's own spelling comes first. Another one counts only if a single level fits it:

        blanks around, Unicode's form   ` Nîmes` is `Nîmes`
        an equal number                 `4.0` is `4`, and `01` if there is no other 1
        a truth value                   `TRUE` and `true` are `True`; so is 1, if no level is 1

    What fits no level and is a gap word (`mlops.data.cells.spelling.GAP_WORDS`) is a gap.

    Args:
        levels: The levels as they are written, in order.
    """

    def __init__(self, levels: Sequence[str]) -> None:
        places = list(enumerate(levels))
        self._exact = {level: place for place, level in places}
        self._tidy = _single((tidy(level), place) for place, level in places)
        numbers = ((number_in(tidy(level)), place) for place, level in places)
        self._numbers: dict[Decimal, int] = _single(numbers)
        truths = ((truth_in(tidy(level)), place) for place, level in places)
        self._truths: dict[bool, int] = _single(truths)
        if not self._truths and self._numbers.keys() == {Decimal(0), Decimal(1)} == {
            number_in(tidy(level)) for level in levels
        }:
            self._truths = {bool(number): place for number, place in self._numbers.items()}

    @property
    def exact(self) -> dict[str, int]:
        """The place of every level by its own spelling."""
        return self._exact

    def place(self, text: str) -> int:
        """Returns the place of the level that a text spells, `GAP`, or `UNKNOWN`."""
        place = self._exact.get(text)
        if place is not None:
            return place
        text = tidy(text)
        place = self._tidy.get(text)
        if place is not None and place != _SEVERAL:
            return place
        if text in GAP_WORDS:
            return GAP
        return self._place_by_value(text)

    def _place_by_value(self, text: str) -> int:
        truth = truth_in(text)
        number = number_in(text) if truth is None else None
        if number is not None:
            place = self._numbers.get(number)
            if place is not None:
                return UNKNOWN if place == _SEVERAL else place
            if number not in (0, 1):
                return UNKNOWN
            truth = bool(number)
        place = UNKNOWN if truth is None else self._truths.get(truth, UNKNOWN)
        return UNKNOWN if place == _SEVERAL else place


def _single(pairs: Iterable[tuple[K | None, int]]) -> dict[K, int]:
    """Maps every key to its place, or to `_SEVERAL` where it has more than one."""
    found: dict[K, int] = {}
    for key, place in pairs:
        if key is not None:
            found[key] = _SEVERAL if key in found else place
    return found


def joined(counts: Mapping[str, int]) -> dict[str, str | None]:
    """Joins the spellings of a column that stand for one level.

    These are spellings that differ in blanks around or in Unicode's form, and truth values in
    letters of several cases. Gap words are gaps unless the column has several of them: then each
    may mean something else, and all but the empty one are levels.

    Args:
        counts: How many rows each text of the column has; a cell without a value is "".

    Returns:
        For each text the most frequent spelling of its level, None for a gap.
    """
    by_key: dict[str | bool, dict[str, int]] = {}
    keys: dict[str, str | bool] = {}
    for text, rows in counts.items():
        tidied = tidy(text)
        truth = truth_in(tidied)
        keys[text] = tidied if truth is None else truth
        spellings = by_key.setdefault(keys[text], {})
        spellings[tidied] = spellings.get(tidied, 0) + rows
    present = {keys[text] for text, rows in counts.items() if rows} & GAP_WORDS
    gaps = GAP_WORDS if len(present) < 2 else {""}
    return {
        text: None
        if key in gaps
        else min(by_key[key], key=lambda spelling: (-by_key[key][spelling], spelling))
        for text, key in keys.items()
    }
