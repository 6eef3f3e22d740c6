"""Which rows are in which part: a matter of the table and its settings, not of a study's seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlops.data.notes import Note
from mlops.data.parts.dealing import deal_absent_classes
from mlops.data.parts.rowhash import repeats, row_hashes, scattered, text_hashes
from mlops.data.parts.timesplit import split_by_time
from mlops.errors import TableError

TRAIN, VALIDATION, TEST = range(3)
NAMES = ("training", "validation", "test")
# Equal rows stay together as long as no part's share strays by more than 0.04 (one standard
# deviation), or by twice what it would if all rows were different.
_MOST_UNEVEN = 0.01
_MOST_REPEATED = 4


@dataclass(frozen=True)
class SplitSpec:
    """How a table is split.

    Attributes:
        split_seed: Another one gives other parts.
        group: A column; the rows that have the same value in it are in one part.
        time: A column; the latest rows are the test part, those before them the validation part.
        validation_fraction: Share of all rows for validation.
        test_fraction: Share of all rows for the test; 0 where there is a test file.
    """

    split_seed: int = 0
    group: str | None = None
    time: str | None = None
    validation_fraction: float = 0.16
    test_fraction: float = 0.2

    def beside_test_file(self) -> SplitSpec:
        """Splits what is no test part as it would be with a test part taken from it."""
        share = self.validation_fraction / (1 - self.test_fraction)
        return replace(self, validation_fraction=share, test_fraction=0.0)

    @property
    def n_parts(self) -> int:
        """Two beside a test file, else three."""
        return 3 if self.test_fraction else 2


def split_rows(
    features: pd.DataFrame,
    codes: np.ndarray,
    spec: SplitSpec,
    *,
    group: pd.Series | None = None,
    time: pd.Series | None = None,
    line_of: Callable[[int], int | None] = lambda row: row + 1,
    hashes: np.ndarray | None = None,
) -> tuple[list[np.ndarray], list[Note]]:
    """Splits rows by what they hold, so that a row stays in its part when others are added.

    A row's hash, without the target, says where it lies between 0 and 1: the test part lies below
    `test_fraction`, the validation part next, the training part above. So the parts' shares vary as
    if rows were drawn; exact ones would move rows whenever some are added. Equal rows are in one
    part. Each class is in every part: see `mlops.data.parts.dealing`.

    Exempt is a table of so few distinct rows that the parts' sizes would depend on where the most
    frequent ones fall. Its rows are dealt one by one: by the hash of what a row holds and of how
    many equal ones of its class came before, so that the first one is where it would be otherwise.

    With a group it is the group's hash instead, and nothing parts a group. With a time see
    `mlops.data.parts.timesplit`; then a part may lack a class.

    Args:
        features: What tells rows apart: [N rows].
        codes: The class of each row, -1 for a row that is in no part: [N] int64.
        spec: How to split.
        group: Column `spec.group`: [N].
        time: Column `spec.time`, numbers or dates: [N].
        line_of: Tells the line, for people, of a row.
        hashes: `row_hashes(features)`, if they are known: [N] uint64.

    Returns:
        parts: Row positions, ascending: [N_i] int64; training, validation and, if
            `test_fraction` is not 0, test.
        notes: What was decided.

    Raises:
        TableError: The column of groups or times cannot give every part a row.
    """
    used = np.flatnonzero(codes >= 0)
    if time is not None:
        fractions = (spec.validation_fraction, spec.test_fraction)[: spec.n_parts - 1]
        part_of, notes = split_by_time(time, used, fractions, line_of)
    else:
        hashes = row_hashes(features) if hashes is None else hashes
        if group is None:
            units, notes = _units_of_rows(hashes[used], codes[used])
        else:
            units, notes = _units_of_groups(group, hashes, used, line_of)
        part_of, dealt = _by_place(units, codes[used], spec)
        notes += dealt
    parts = [used[part_of == part] for part in range(spec.n_parts)]
    if group is not None or time is not None:
        notes += _lacking(codes[used], part_of, spec)
    return parts, notes


def _by_place(
    units: np.ndarray, codes: np.ndarray, spec: SplitSpec
) -> tuple[np.ndarray, list[Note]]:
    """Puts units of rows into parts: [N] uint64, and the class of each row."""
    salted = scattered(units ^ scattered(np.array([spec.split_seed + 1], dtype=np.uint64)))
    places = (salted >> np.uint64(11)) * 2.0**-53
    ends = np.cumsum([spec.test_fraction, spec.validation_fraction, 1.0])
    part_of = TEST - np.searchsorted(ends[:2], places, side="right")
    spans = [(ends[1], 1.0), (ends[0], ends[1]), (0.0, ends[0])][: spec.n_parts]
    may_part = spec.group is None
    return part_of, deal_absent_classes(part_of, units, codes, places, spans, may_part)


def _units_of_rows(hashes: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, list[Note]]:
    """Returns what is dealt as a whole: equal rows, or each row of a table of few distinct ones."""
    _, counts = np.unique(hashes, return_counts=True)
    # Parts that are dealt by units of w_i of the table each have shares of variance
    # f (1 - f) sum(w_i^2).
    uneven = np.sum(np.square(counts / len(hashes)))
    if uneven <= max(_MOST_UNEVEN, _MOST_REPEATED / len(hashes)):
        return hashes, []
    before = repeats(hashes, codes).astype(np.uint64)
    units = hashes ^ np.where(before, scattered(before), np.uint64(0))
    return units, [
        Note(
            "equal_rows_dealt",
            f"of {len(hashes):,} rows only {len(counts):,} are different, too few, or some too "
            "frequent, to keep equal rows in one part: rows are dealt one by one, so test rows "
            "repeat training rows; --data.group COLUMN says which rows belong together",
            cells=len(hashes),
        )
    ]


def _units_of_groups(
    group: pd.Series,
    hashes: np.ndarray,
    used: np.ndarray,
    line_of: Callable[[int], int | None],
) -> tuple[np.ndarray, list[Note]]:
    """Returns what is dealt as a whole: a group, or a row without one."""
    name = str(group.name)
    units, gaps = (found[used] for found in text_hashes(group))
    n_groups, n_gaps = len(np.unique(units[~gaps])), int(gaps.sum())
    text = f"the rows of each of its {n_groups:,} groups are in one part"
    notes = [Note("group_split", text, column=name, cells=len(used), wished=True)]
    if n_gaps:
        units[gaps] = hashes[used[gaps]]
        text = f"{n_gaps:,} row(s) without a group are each dealt by what they hold"
        line = line_of(int(used[gaps][0]))
        notes.append(Note("group_gaps", text, column=name, cells=n_gaps, line=line))
    return units, notes


def _lacking(codes: np.ndarray, part_of: np.ndarray, spec: SplitSpec) -> list[Note]:
    """Checks what groups or times have made of the parts.

    Raises:
        TableError: A part has no row.
    """
    shares = np.bincount(part_of, minlength=spec.n_parts) / len(codes)
    column = f"`data.{'time' if spec.group is None else 'group'}`"
    empty = [NAMES[part] for part in range(spec.n_parts) if not shares[part]]
    if empty:
        raise TableError(
            f"{column} must leave rows for every part, got none for the {' and '.join(empty)} "
            "part; name a column of more different values, or other sizes of the parts"
        )
    notes = []
    wanted = {VALIDATION: spec.validation_fraction, TEST: spec.test_fraction}
    for part in range(1, spec.n_parts):
        if abs(shares[part] - wanted[part]) > 0.5 * min(wanted[part], 1 - wanted[part]):
            text = (
                f"the {NAMES[part]} part has {shares[part]:.0%} of the rows where "
                f"{wanted[part]:.0%} were asked for, since {column} keeps rows together"
            )
            notes.append(Note("part_size", text, warning=True))
    for part in range(spec.n_parts):
        lacking = len(np.setdiff1d(codes, codes[part_of == part]))
        if lacking:
            text = f"{lacking} class(es) are not in the {NAMES[part]} part, since {column} decides"
            notes.append(Note("absent_classes", text, cells=lacking, warning=True))
    return notes
