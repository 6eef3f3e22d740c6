"""How a column writes numbers, and how its cells are read: one text, one number, whoever asks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlops.data.cells.durations import read_duration
from mlops.data.cells.plain import cast_plain
from mlops.data.cells.spelling import is_code, is_gap, number_in, tidy, truth_in

CURRENCIES = frozenset("$€£¥₹₽₩₺₴฿") | {"USD", "EUR", "GBP", "CHF", "JPY", "CAD", "AUD", "SEK"}
PER_CENT = "%"
# No amount is written longer, and a pattern takes long over what is.
LONGEST_AMOUNT = 64
_GROUPS = ",. '\u00a0\u202f\u2009\u2019"
_SIGN = r"[+\-\u2212\u2012\u2013]?"
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+")
_AMOUNT = re.compile(
    rf"({_SIGN})\s*([^\W\d_]{{3}}|[{re.escape(''.join(c for c in CURRENCIES if len(c) == 1))}])?\s*"
    rf"({_SIGN})\s*([0-9][0-9{re.escape(_GROUPS)}]*|[.,][0-9]+)((?:[eE][+\-]?[0-9]+)?)"
    r"(\s*)([^\s0-9,;:/()]{0,12})"
)
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
class NumberFormat:
    """How numbers are written in a column, beside plainly.

    Attributes:
        decimal: The decimal sign: `.` or `,`.
        thousands: What separates groups of three digits; empty for nothing.
        affixes: What may stand before or after a number and is left out: currencies, `%`, units.
        clock: Whether numbers are durations or times of a day, in seconds.
    """

    decimal: str = "."
    thousands: str = ""
    affixes: tuple[str, ...] = ()
    clock: bool = False

    def read(self, text: str) -> float | None:
        """Reads a text: a number, NaN for a gap word, None where it is neither."""
        text = tidy(text)
        if self.clock and (":" in text or "day" in text):
            return read_duration(text)
        number = number_in(text)
        if number is not None and (self._is_plain or self._plain_may_be(text)):
            return _finite(float(number))
        if is_gap(text):
            return np.nan
        return None if self._is_plain else self._read_formatted(text)

    def _plain_may_be(self, text: str) -> bool:
        """Whether a plain number is meant plainly: `1.234` is not where a point groups digits."""
        if self.thousands != "." or "." not in text:
            return True
        return not self._body.fullmatch(text.lstrip("+-\u2212"))

    def _read_formatted(self, text: str) -> float | None:
        if len(text) > LONGEST_AMOUNT:
            return None
        negative = text.startswith("(") and text.endswith(")")  # accountants' minus
        match = _AMOUNT.fullmatch(text[1:-1].strip() if negative else text)
        if match is None:
            return None
        sign, before, sign_after, body, exponent, _, after = match.groups()
        if (sign and sign_after) or any(x and x not in self.affixes for x in (before, after)):
            return None
        body = body.strip(_GROUPS.replace(",", "").replace(".", "")) if body else body
        if self._body.fullmatch(body) is None:
            return None
        if self.thousands:
            body = "".join(c for c in body if c not in _alike(self.thousands))
        number = number_in(body.replace(self.decimal, ".") + exponent)
        if number is None:
            return None
        minus = negative or (sign or sign_after) not in ("", "+")
        return _finite(-float(number) if minus else float(number))

    @cached_property
    def _is_plain(self) -> bool:
        return self == NumberFormat()

    @cached_property
    def _body(self) -> re.Pattern[str]:
        decimal = re.escape(self.decimal)
        whole = "[0-9]+"
        if self.thousands:
            group = f"[{re.escape(_alike(self.thousands))}]"
            whole = f"(?:[0-9]{{1,3}}(?:{group}[0-9]{{3}})+|[0-9]+)"
        return re.compile(f"(?:{whole}(?:{decimal}[0-9]*)?|{decimal}[0-9]+)")

    def told(self) -> str:
        """Says in words what was found; empty where numbers are plain."""
        parts = ["durations or times of a day, in seconds"] if self.clock else []
        if self.decimal != ".":
            parts.append(f"`{self.decimal}` as the decimal sign")
        if self.thousands:
            name = self.thousands if self.thousands.strip() else "a blank"
            parts.append(
                f"`{name}` between thousands" if name != "a blank" else "blanks between thousands"
            )
        if self.affixes:
            parts.append(
                ", ".join(f"`{affix}`" for affix in self.affixes) + " beside the number left out"
            )
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return {**asdict(self), "affixes": list(self.affixes)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> NumberFormat:
        """Rebuilds a format from `to_json`'s value."""
        return cls(**{**state, "affixes": tuple(state["affixes"])})


PLAIN = NumberFormat()


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
        match = _AMOUNT.fullmatch(inner)
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


def read_column(
    form: NumberFormat, texts: Any, *, binary: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Reads the texts of a column.

    Args:
        form: How they are written.
        texts: A pyarrow array of text, or chunked array, null for a gap: [N].
        binary: Whether `true` and `false` are 1 and 0.

    Returns:
        The numbers, NaN for a gap and for what is no number: [N] float64; and the positions of the
        latter: [M] int64.
    """
    if form == PLAIN:
        numbers = cast_plain(texts)
        if numbers is not None:
            return np.require(numbers, requirements="W"), np.array([], dtype=np.int64)
    encoded = pc.dictionary_encode(texts)
    chunks = encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]
    numbers = np.empty(len(texts), dtype=np.float64)
    odd = []
    first = 0
    for chunk in chunks:
        values, is_odd = read_all(form, chunk.dictionary.to_pylist(), binary=binary)
        codes = chunk.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
        last = first + len(codes)
        numbers[first:last] = np.append(values, np.nan)[codes]
        odd.append(first + np.flatnonzero(np.append(is_odd, False)[codes]))
        first = last
    return numbers, np.concatenate(odd) if odd else np.array([], dtype=np.int64)


def read_all(
    form: NumberFormat, texts: Iterable[str], *, binary: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Reads texts one by one.

    Returns:
        The numbers, NaN for a gap and for what is no number: [N] float64; and which are the
        latter: [N] bool.
    """
    read = [read_text(form, text, binary) for text in texts]
    numbers = np.array([np.nan if number is None else number for number in read], dtype=np.float64)
    return numbers, np.array([number is None for number in read], dtype=bool)


def read_text(form: NumberFormat, text: str, binary: bool) -> float | None:
    """Reads a text as `NumberFormat.read` does, and where `binary` truth values as 1 and 0."""
    number = form.read(text)
    if number is None and binary:
        truth = truth_in(tidy(text))
        return None if truth is None else float(truth)
    return number


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None


def _alike(thousands: str) -> str:
    """All the blanks and quotes that separate thousands, where one of them does."""
    if not thousands.strip():
        return " \u00a0\u202f\u2009"
    return "'\u2019" if thousands == "'" else thousands
