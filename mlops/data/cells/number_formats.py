"""How the texts of a column write numbers: found once, from a training table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlops.data.cells.numbers import AMOUNT, CURRENCIES, LONGEST_AMOUNT, PLAIN, NumberFormat
from mlops.data.cells.spelling import is_code, tidy

PER_CENT = "%"
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+")
# A unit that follows a number without a blank; letters of codes such as `1A` do too.
# fmt: off
_UNITS = frozenset({
    "%", "‰", "°", "°C", "°F", "kg", "g", "mg", "µg", "lb", "lbs", "oz", "km", "m", "cm", "mm",
    "nm", "mi", "ft", "in", "yd", "l", "ml", "mL", "cl", "s", "ms", "min", "kWh", "Wh", "kW", "MW",
    "mV", "mA", "Hz", "kHz", "MHz", "GHz", "MB", "GB", "TB", "kB", "bar", "Pa", "hPa", "kPa", "ppm",
    "mmHg", "mmol", "bpm",
})
# fmt: on


@dataclass(frozen=True)
class Found:
    """How the texts of a column are numbers.

    Attributes:
        format: How they are written.
        numbers: How many rows hold a number.
        odd: The texts that are neither number nor gap, with their rows.
        codes: How many rows hold digits written as a code, with zeros before.
        distinct: How many distinct numbers there are.
        guessed: Whether the decimal sign was guessed, since all cells can be read both ways.
    """

    format: NumberFormat
    numbers: int
    odd: dict[str, int]
    codes: int
    distinct: int
    guessed: bool = False

    @property
    def n_odd(self) -> int:
        """How many rows are neither number nor gap."""
        return sum(self.odd.values())


def find_format(counts: Mapping[str, int], *, decimal: str = ".", only: str | None = None) -> Found:
    """Finds how texts write numbers, so that as many of them as possible are.

    Args:
        counts: The rows of each distinct text.
        decimal: The likelier decimal sign where texts can be read both ways.
        only: The decimal sign, if it is known.
    """
    plain = _found(PLAIN, counts)
    groups = decimal == "," and only is None and _are_grouped(plain.format, counts)
    if not plain.odd and only != "," and not groups:
        return plain
    affixes = _affixes(plain.odd, plain.numbers + plain.n_odd)
    best, guessed = plain, False
    if groups:
        return replace(_found(NumberFormat(",", "."), counts), guessed=True)
    if only == ",":
        best = _found(NumberFormat(",", "."), counts)
    signs = [(".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'")]
    if decimal == ",":
        signs.sort(key=lambda pair: pair[0] != ",")
    signs = [pair for pair in signs if only in (None, pair[0])]
    for point, thousands in signs:
        found = _found(NumberFormat(point, thousands, affixes), counts)
        if found.n_odd < best.n_odd:
            best, guessed = found, False
        elif found.n_odd == best.n_odd and best.format.decimal != point and best is not plain:
            guessed = True
    if best is plain:
        return plain
    used = tuple(affix for affix in affixes if any(affix in text for text in plain.odd))
    if only is not None:
        return replace(best, format=replace(best.format, affixes=used))
    guessed &= bool(best.format.thousands) or best.format.decimal != "."
    return replace(best, format=replace(best.format, affixes=used), guessed=guessed)


def _are_grouped(form: NumberFormat, counts: Mapping[str, int]) -> bool:
    """Tells whether every point may well stand between thousands, and some does."""
    pointed = [tidy(text) for text in counts if "." in text and form.read(text) == form.read(text)]
    return bool(pointed) and all(_GROUPED.fullmatch(text) for text in pointed)


def _found(form: NumberFormat, counts: Mapping[str, int]) -> Found:
    numbers = codes = 0
    odd: dict[str, int] = {}
    distinct = set()
    for text, rows in counts.items():
        number = form.read(text)
        if number is None:
            odd[text] = rows
        elif number == number:
            numbers += rows
            distinct.add(number)
            codes += rows * is_code(tidy(text))
    return Found(form, numbers, odd, codes, len(distinct))


def _affixes(odd: Mapping[str, int], rows_in_all: int) -> tuple[str, ...]:
    """Finds currencies, and one unit that most cells have."""
    found: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for text, rows in odd.items():
        text = tidy(text)
        if len(text) > LONGEST_AMOUNT:
            continue
        inner = text[1:-1].strip() if text.startswith("(") and text.endswith(")") else text
        match = AMOUNT.fullmatch(inner)
        if match is None:
            continue
        before, blank, after = match.group(2), match.group(6), match.group(7)
        if before in CURRENCIES:
            found[before] += rows
        if after in CURRENCIES:
            found[after] += rows
        elif after and (blank or after in _UNITS):
            units[after] += rows
    unit, rows = units.most_common(1)[0] if units else ("", 0)
    # Cells of several units are not of one scale.
    # Nor are 43% and 0.43.
    share = 0.9 if unit == PER_CENT else 0.5
    if unit and rows > 0.9 * units.total() and rows > share * rows_in_all:
        found[unit] += rows
    currencies = [affix for affix in found if affix in CURRENCIES]
    if len(currencies) > 1:  # of several currencies likewise
        for affix in currencies:
            del found[affix]
    return tuple(sorted(found))
