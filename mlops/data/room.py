"""Whether an encoded table fits the memory, told before it is made."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import psutil

from mlops.data.columns.features import FeatureEncoder
from mlops.errors import TableError

# One here, and one that is put where workers read it.
COPIES = 2
# What part of the memory that is free a table may take without a word.
UNNOTED = 0.25
NAMED_COLUMNS = 3
_CGROUP = Path("/sys/fs/cgroup")


def check_room(encoder: FeatureEncoder, n_rows: int, free: int) -> None:
    """Notes that an encoded table will be large, and which columns make it so.

    Args:
        encoder: What it is to be encoded with.
        n_rows: How many rows are.
        free: Bytes of memory that may be taken.

    Raises:
        TableError: It does not fit.
    """
    needed = COPIES * 4 * n_rows * encoder.width
    if needed <= UNNOTED * free:
        return
    what = f"{n_rows:,} rows of {encoder.width:,} features, {in_units(needed)} in {COPIES} copies"
    if needed > free:
        raise TableError(
            f"the encoded table must fit the memory, got {what}, with {in_units(free)} free; most "
            f"is of {widest_columns(encoder)}; leave out columns that tell nothing (an identifier, "
            "a text), or train on fewer rows"
        )
    told = f"the encoded table takes much memory, {what}; most is of {widest_columns(encoder)}"
    print(told, file=sys.stderr, flush=True)


def widest_columns(encoder: FeatureEncoder) -> str:
    """Names the columns that become the most features, such as `id` (101), `zip` (87), 38 more."""
    widest = sorted(encoder.columns, key=lambda column: -column.width)
    named = [f"`{column.name}` ({column.width})" for column in widest[:NAMED_COLUMNS]]
    rest = len(widest) - len(named)
    return ", ".join([*named, *([f"{rest} more columns"] if rest else [])])


def free_memory() -> int:
    """Returns how many bytes may be taken, of the machine or of a container on it."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # elsewhere, or without a limit
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        # Files that were read are kept as long as nobody wants their memory.
        free = min(free, max(0, limit - used + int(stat.get("inactive_file", 0))))
    return free


def in_units(size: int) -> str:
    """Returns 62_000_000 as `62 MB`."""
    for unit, n_bytes in (("GB", 10**9), ("MB", 10**6)):
        if size >= n_bytes:
            return f"{size / n_bytes:.3g} {unit}"
    return f"{size / 1000:.3g} kB"
