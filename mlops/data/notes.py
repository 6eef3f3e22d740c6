"""Notes: what was noticed or decided about a table, in words for the person who brought it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Longer lists are cut on the terminal, never on the record.
MOST_SHOWN = 30


@dataclass(frozen=True)
class Note:
    """One thing that was noticed or decided.

    Attributes:
        code: The kind of note, such as `odd_cells`.
        text: What was found, what was done about it, and how to say otherwise, in a line; it holds
            no cell of the table, so that it may be kept on record.
        column: The column it is about; None where it is about the table or its file.
        cells: How many cells, or rows, it is about.
        line: The first line of the file, or else row of the table, that shows it, from 1.
        example: A cell that shows it, as it is written; not kept on record.
        warning: Whether the result may be wrong if nobody looks into it.
        wished: Whether it is what the user has asked for.
    """

    code: str
    text: str
    column: str | None = None
    cells: int | None = None
    line: int | None = None
    example: str | None = None
    warning: bool = False
    wished: bool = False

    def __str__(self) -> str:
        """Returns the note as a line for people."""
        about = "" if self.column is None else f"`{self.column}`: "
        shown = []
        if self.line is not None:
            shown.append(f"first in line {self.line:,}")
        if self.example is not None:
            shown.append(_shortened(self.example))
        where = f" ({', '.join(shown)})" if shown else ""
        return f"{'warning: ' if self.warning else ''}{about}{self.text}{where}"

    def to_json(self) -> dict[str, Any]:
        """Returns the note as JSON values, without a cell of the table."""
        values = {
            "code": self.code,
            "text": self.text,
            "column": self.column,
            "cells": self.cells,
            "line": self.line,
            "warning": self.warning,
        }
        return {key: value for key, value in values.items() if value is not None}


def told(name: str, notes: Sequence[Note], most: int = MOST_SHOWN) -> str:
    """Returns notes for the terminal, a line each under a title, warnings first.

    Args:
        name: What they are about.
        notes: The notes.
        most: How many to show.
    """
    if not notes:
        return ""
    ordered = sorted(notes, key=lambda note: not note.warning)
    more = [f"and {len(notes) - most} more, all on record as notes.json"]
    lines = [*map(str, ordered[:most]), *(more if len(notes) > most else [])]
    return "\n".join([f"{name}: {len(notes)} note(s)", *(f"  - {line}" for line in lines)])


def to_json(notes: Iterable[Note]) -> list[dict[str, Any]]:
    """Returns notes as JSON values, for the record and for the job's result."""
    return [note.to_json() for note in notes]


def _shortened(text: str, most: int = 40) -> str:
    shown = repr(text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


ODDITIES = {
    "unknown_level": "cell(s) of categories that training has not seen",
    "new_gap": "cell(s) without a value, of which training had none",
    "odd_cell": "cell(s) without a finite number, read as gaps",
    "far_outside": "number(s) far from those of training",
    "unused_column": "cell(s) of a column that only the training table has, ignored",
}


class Tally:
    """Counts what is odd about rows that are scored, by kind and column.

    The kinds are those of `ODDITIES`.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, code: str, column: str, cells: int) -> None:
        """Adds a number of cells, which may be none."""
        if cells:
            self.counts[code, column] += cells

    def merge(self, other: Tally) -> None:
        """Adds what another one has counted."""
        self.counts += other.counts

    def told(self, name: str, most: int = MOST_SHOWN) -> str:
        """Returns the counts for the terminal, a line each under a title, the largest first.

        Args:
            name: What they are about.
            most: How many to show.
        """
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        shown = [(column, cells, ODDITIES[code]) for (code, column), cells in ordered[:most]]
        lines = [f"  - `{column}`: {cells:,} {what}" for column, cells, what in shown]
        more = [f"  - and {len(ordered) - most} more, in the result"]
        return "\n".join([f"{name}: notes", *lines, *(more if len(ordered) > most else [])])

    @classmethod
    def from_json(cls, notes: Iterable[Mapping[str, Any]]) -> Tally:
        """Returns what `to_json` was called of."""
        tally = cls()
        for note in notes:
            tally.add(note["code"], note["column"], note["cells"])
        return tally

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the counts as JSON values, in order of columns."""
        return [
            {"code": code, "column": column, "cells": cells}
            for (code, column), cells in sorted(self.counts.items(), key=lambda item: item[0][::-1])
        ]
