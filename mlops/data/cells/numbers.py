"""How a column writes numbers, and how its cells are read: one text, one number, whoever asks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlops.data.cells.durations import read_duration
from mlops.data.cells.plain import cast_plain
from mlops.data.cells.spelling import is_gap, number_in, tidy, truth_in

CURRENCIES = frozenset("$€£¥₹₽₩₺₴฿") | {"USD", "EUR", "GBP", "CHF", "JPY", "CAD", "AUD", "SEK"}
# No amount is written longer, and a pattern takes long over what is.
LONGEST_AMOUNT = 64
_GROUPS = ",. '\u00a0\u202f\u2009\u2019"
_SIGN = r"[+\-\u2212\u2012\u2013]?"
AMOUNT = re.compile(
    rf"({_SIGN})\s*([^\W\d_]{{3}}|[{re.escape(''.join(c for c in CURRENCIES if len(c) == 1))}])?\s*"
    rf"({_SIGN})\s*([0-9][0-9{re.escape(_GROUPS)}]*|[.,][0-9]+)((?:[eE][+\-]?[0-9]+)?)"
    r"(\s*)([^\s0-9,;:/()]{0,12})"
)


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
        match = AMOUNT.fullmatch(text[1:-1].strip() if negative else text)
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
