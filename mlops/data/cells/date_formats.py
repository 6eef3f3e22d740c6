"""How the texts of a column write dates: found once, from a training table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlops.data.cells.dates import (
    DAY_NAMED,
    ISO,
    LONGEST,
    NAMED_DAY,
    PLAIN,
    SHORT_YEAR,
    YEAR_FIRST,
    YEAR_LAST,
    DateFormat,
    is_date_gap,
)
from mlops.data.cells.spelling import tidy

# A column holds dates if at least this share of its cells, gaps aside, are.
LEAST_DATES = 0.95


@dataclass(frozen=True)
class FoundDates:
    """How the texts of a column are dates.

    Attributes:
        format: How they are written.
        dates: How many rows hold a date.
        odd: The texts that are neither date nor gap, with their rows.
        guessed: Whether the order of day, month and year was guessed.
    """

    format: DateFormat
    dates: int
    odd: dict[str, int]
    guessed: bool = False

    @property
    def n_odd(self) -> int:
        """How many rows are neither date nor gap."""
        return sum(self.odd.values())


def find_dates(counts: Mapping[str, int]) -> FoundDates | None:
    """Finds how texts write dates; None where too few do.

    Which of day and month comes first is told by any part above 12. Where none is, it is a guess:
    the day where points separate them, else the month. Where a year of two digits may come first,
    as in 24-01-31, the order with fewer distinct years is the likelier one.

    Args:
        counts: The rows of each distinct text.
    """
    cells = {text: rows for text, rows in counts.items() if not is_date_gap(text)}
    total = sum(cells.values())
    shapes: Counter[str] = Counter()
    for text, rows in cells.items():
        shapes[_shape(tidy(text))] += rows
    if not total or total - shapes.pop("", 0) < LEAST_DATES * total:
        return None
    forms = [form for shape, _ in shapes.most_common() for form in _candidates(shape)]
    texts = list(cells)
    read = {form: DateFormat(form).read(texts) for form in forms}
    rows_of = np.array(list(cells.values()), dtype=np.int64)

    def likely(form: str) -> tuple[int, int]:
        known = ~np.isnat(read[form])
        years = np.unique(read[form][known].astype("datetime64[Y]"))
        # 24-01-31 is of 2024 with all the others, not of a year of its own.
        return int(rows_of[known].sum()), -len(years)

    best = max(forms, key=likely)  # the first of equal ones
    dates, _ = likely(best)
    if not dates or dates < LEAST_DATES * total:
        return None
    # Equal times do not settle it: 01/01/2024 is the same both ways, the rows to come are not.
    guessed = best != ISO and any(
        likely(form)[0] == dates and _order(form) != _order(best) for form in forms
    )
    odd = {texts[place]: int(rows_of[place]) for place in np.flatnonzero(np.isnat(read[best]))}
    return FoundDates(DateFormat(best), dates, odd, guessed)


def _shape(text: str) -> str:
    """Returns the likelier form of what may be a date; empty where it may be none."""
    if not 6 <= len(text) <= LONGEST:
        return ""
    if PLAIN.fullmatch(text) or YEAR_FIRST.fullmatch(text):
        return ISO
    for pattern, year in ((YEAR_LAST, "%Y"), (SHORT_YEAR, "%y")):
        match = pattern.fullmatch(text)
        if match is not None:
            mark = match["mark"] or "/"
            return mark.join(("%d", "%m", year) if mark == "." else ("%m", "%d", year))
    for pattern, form in ((DAY_NAMED, "%d %b "), (NAMED_DAY, "%b %d ")):
        match = pattern.fullmatch(text)
        if match is not None:
            return form + ("%Y" if len(match["year"]) == 4 else "%y")
    return ""


def _order(form: str) -> str:
    """Returns what stands first, where that matters: a month that is named may stand anywhere."""
    return "%b" if "%b" in form else form[:2]


def _candidates(shape: str) -> list[str]:
    """Returns the forms that texts of a shape may have, likelier ones first."""
    if "%m" not in shape:
        return [shape]
    turned = shape.replace("%d", "%_").replace("%m", "%d").replace("%_", "%m")
    return [shape, turned, *(["%y-%m-%d"] if shape.endswith("-%y") else [])]
