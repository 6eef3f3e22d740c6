"""How much memory a pack takes, worked out before there is one; needs no torch.

What follows from a table's rows and classes is as large as the weights, or larger: a step's output,
the log-probabilities of the steps that are taken at once, an evaluation's buffers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from mlops.configuration.hyperparameters import Hyperparameters

# Rows staged at a time. Dropout noise is drawn by these chunks, so changing it changes results.
CHUNK_ROWS = 2048
# Steps of one CUDA graph, which has some forty kernels a step; elsewhere all of a chunk's.
STEPS_AT_ONCE = {"cuda": 64}
# Log-probabilities that are held at once: steps of a pack for many classes go in smaller pieces.
PIECE_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}
# Elements of the widest buffer in an evaluation pass.
PASS_ELEMENTS = {"cpu": 2**19, "cuda": 2**25}


class TableSize(NamedTuple):
    """The encoded table that packs train on."""

    n_train: int
    n_val: int
    n_features: int
    n_outputs: int

    @property
    def bytes(self) -> int:
        """Of features, float32, and targets, int64."""
        return (self.n_train + self.n_val) * (4 * self.n_features + 8)


class Steps(NamedTuple):
    """How an epoch's steps are taken: chunks of so many rows, each in pieces of so many."""

    batch_size: int
    chunk_rows: int
    piece_rows: int


def steps(batch_size: int, n_rows: int, members: int, n_outputs: int, device: str) -> Steps:
    """Divides an epoch.

    Args:
        batch_size: Rows of a step.
        n_rows: Rows to train on.
        members: Of the pack.
        n_outputs: Width of a network's output.
        device: "cpu" or "cuda".
    """
    batch_size = min(batch_size, n_rows)
    whole = max(1, min(CHUNK_ROWS // batch_size, n_rows // batch_size))
    fitting = PIECE_ELEMENTS[device] // (members * batch_size * n_outputs)
    piece = max(1, min(whole, STEPS_AT_ONCE.get(device, whole), fitting))
    return Steps(batch_size, whole * batch_size, piece * batch_size)


def evaluation_rows(members: int, widest: int, device: str) -> int:
    """Returns how many rows are evaluated at a time, by the widest layer, the output included."""
    return max(32, PASS_ELEMENTS[device] // (members * widest))


def pack_bytes(member: Hyperparameters, members: int, table: TableSize, device: str) -> int:
    """Returns about how much memory a pack takes in training besides the table, as float32.

    Args:
        member: What all of its members are like.
        members: How many.
        table: What it trains on.
        device: "cpu" or "cuda".
    """
    widths = (table.n_features, *member.hidden_dims)
    units, classes = sum(member.hidden_dims), table.n_outputs
    weights = sum((a + 1) * b for a, b in pairwise((*widths, classes)))
    # Parameters, gradients, two moments, the optimizer's direction, rates and decays, and the best.
    floats = 8 * members * weights
    batch, chunk, piece = steps(member.batch_size, table.n_train, members, classes, device)
    # The last chunk may have fewer steps, and the last step fewer rows: buffers of their own.
    rest = table.n_train % batch
    last = (table.n_train % chunk - rest) % piece
    for rows in (batch, rest):
        # What goes into an activation, what comes out, its gradient and what is dropped.
        hidden = (4 if member.dropout else 3) * units
        floats += members * rows * (hidden + 2 * classes)
    for rows in {piece, chunk % piece, last, rest}:
        floats += rows * (members * classes + table.n_features)
        floats += 2 * rows * units if member.dropout else 0
    # For a moment: the targets, by member where they are smoothed, and the rows.
    smoothed = members if member.label_smoothing else 1
    floats += piece * (2 * smoothed * classes + table.n_features)
    held = min(table.n_val, evaluation_rows(members, max(*widths[1:], classes), device))
    for rows in {held, table.n_val % held}:
        floats += rows * (members * (2 * units + 2 * classes + 4) + table.n_features)
    return 4 * floats


def most_members(
    member: Hyperparameters, table: TableSize, device: str, memory: int, at_most: int
) -> int:
    """Returns how many members a pack may have for some bytes of memory, at least one."""
    fitting = (k for k in range(at_most, 0, -1) if pack_bytes(member, k, table, device) <= memory)
    return next(fitting, 1)
