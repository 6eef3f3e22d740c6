"""Classes that would be absent from a part: rows that are dealt otherwise than by their hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mlops.data.notes import Note


def deal_absent_classes(
    part_of: np.ndarray,
    units: np.ndarray,
    codes: np.ndarray,
    places: np.ndarray,
    spans: Sequence[tuple[float, float]],
    may_part: bool,
) -> list[Note]:
    """Moves rows so that each class is in every part, as few and as near ones as possible.

    Where a part lacks a class it gets the unit of that class whose place is nearest to the part's
    span, of the smallest units, unless a class would then be absent where it comes from. A class of
    fewer units than parts is dealt row by row. Where that is not allowed or not enough, the
    training part, which is the first one, has the class before others.

    Args:
        part_of: The part of each row, changed in place: [N] int64.
        units: Rows of the same value are moved together: [N] uint64.
        codes: The class of each row: [N] int64, from 0.
        places: Where each unit lies, from 0 to 1: [N] float64.
        spans: From where to where a row's place makes it one of a part, for each part.
        may_part: Whether rows of a unit may be parted, if nothing else helps.

    Returns:
        Notes of what was moved.
    """
    counts = _Counts(part_of, codes, len(spans))
    if counts.complete:
        return []
    by_unit = np.argsort(units, kind="stable")
    by_class = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    of_unit = _Members(units, by_unit)
    moved, parted, classes = 0, 0, set()
    for code, part in counts.absent():
        low, high = spans[part]
        rows = by_class[code]
        far = np.maximum(np.maximum(low - places[rows], places[rows] - high), 0.0)
        chosen = next(filter(counts.can_spare, of_unit.small_and_near(rows, far)), None)
        if chosen is None and may_part:
            singles = (rows[[at]] for at in np.argsort(far, kind="stable"))
            chosen = next(filter(counts.can_spare, singles), None)
            parted += chosen is not None
        if chosen is None and part == 0:
            units_of_class = of_unit.small_and_near(rows, far)
            chosen = next((it for it in units_of_class if counts.can_spare(it, code)), None)
        if chosen is not None:
            counts.move(chosen, part)
            moved += len(chosen)
            classes.add(code)
    notes = []
    if moved:
        text = (
            f"{moved:,} row(s) of {len(classes)} class(es) were dealt to the parts by rank, since "
            "a part would have had none of the class; they may be in another part when rows are "
            "added"
        )
        notes.append(Note("dealt_by_rank", text, cells=moved))
    if parted:
        text = f"{parted} of these rows are equal to rows of another part: no others are left"
        notes.append(Note("equal_rows_parted", text, cells=parted))
    return notes


class _Counts:
    """How many rows of each class each part has."""

    def __init__(self, part_of: np.ndarray, codes: np.ndarray, n_parts: int) -> None:
        self._part_of, self._codes, self._n_parts = part_of, codes, n_parts
        cells = (int(codes.max(initial=-1)) + 1) * n_parts
        self._counts = np.bincount(codes * n_parts + part_of, minlength=cells)

    @property
    def complete(self) -> bool:
        """Whether each class is in every part."""
        return bool(self._counts.all())

    def absent(self) -> Iterator[tuple[int, int]]:
        """Yields classes and the parts that lack them, as they are when it comes to them."""
        table = self._counts.reshape(-1, self._n_parts)
        for code in np.flatnonzero((table == 0).any(axis=1) & table.any(axis=1)):
            for part in range(self._n_parts):
                if not table[code, part]:
                    yield int(code), part

    def can_spare(self, rows: np.ndarray, but_for: int = -1) -> bool:
        """Whether each class of these rows but one has others in the part that they are in."""
        cells, taken = np.unique(self._cells(rows), return_counts=True)
        left = (self._counts[cells] > taken) | (cells // self._n_parts == but_for)
        return bool(left.all())

    def move(self, rows: np.ndarray, part: int) -> None:
        """Puts rows into a part."""
        np.subtract.at(self._counts, self._cells(rows), 1)
        self._part_of[rows] = part
        np.add.at(self._counts, self._cells(rows), 1)

    def _cells(self, rows: np.ndarray) -> np.ndarray:
        return self._codes[rows] * self._n_parts + self._part_of[rows]


class _Members:
    """The rows of each unit."""

    def __init__(self, units: np.ndarray, by_unit: np.ndarray) -> None:
        self._units, self._by_unit, self._sorted = units, by_unit, units[by_unit]

    def small_and_near(self, rows: np.ndarray, far: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the rows of each unit that some rows belong to, small units first, then near."""
        units, first = np.unique(self._units[rows], return_index=True)
        begin = np.searchsorted(self._sorted, units, side="left")
        end = np.searchsorted(self._sorted, units, side="right")
        for at in np.lexsort((far[first], end - begin)):
            yield self._by_unit[begin[at] : end[at]]
