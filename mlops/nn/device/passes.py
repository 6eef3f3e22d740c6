"""Passes of a pack over a table's rows: a training epoch, an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mlops.nn import sizes, streams
from mlops.nn.device.graphs import Lane
from mlops.nn.device.programs import Evaluation, Steps
from mlops.nn.device.rows import Rows
from mlops.nn.device.workspace import TrainingWorkspace, Workspace
from mlops.nn.optimizer import PackedAdamW
from mlops.nn.packed import PackedMLP


class Passes:
    """One pack's passes over the rows: a training epoch, an evaluation.

    What they return is on the device, and on a GPU still in the making: reading it waits.

    Args:
        pack: The pack.
        rows: The table, on the pack's device.
        lane: Where a GPU's work is queued.
    """

    def __init__(self, pack: PackedMLP, rows: Rows, lane: Lane | None = None) -> None:
        self.pack, self.data = pack, rows
        self._lane = lane or Lane(pack.device)
        self._graphs = self._lane.graphs()
        n_rows = len(rows.x_train)
        batch_size, device = pack.members[0].batch_size, pack.device.type
        self.batch_size, self.chunk_rows, self._piece_rows = sizes.steps(
            batch_size, n_rows, len(pack), rows.task.n_outputs, device
        )
        self._order = torch.empty(n_rows, dtype=torch.int64, device=pack.device)
        self._totals = rows.task.totals(len(pack), pack.device)
        self._training_spaces: dict[int, TrainingWorkspace] = {}
        self._steps: dict[tuple[int, int], tuple[Steps, Callable[[], None]]] = {}
        self._evaluation: tuple[Evaluation, Callable[[], None]] | None = None

    def pieces(self, optimizer: PackedAdamW, seed: int, epoch: int) -> Iterator[None]:
        """Trains for one epoch, piece by piece; `trained` has the outcome.

        Args:
            optimizer: Of this pack, always the same.
            seed: The study's seed.
            epoch: The epoch, from 1.
        """
        n_rows = len(self.data.x_train)
        self._lane.fill(self._order, streams.shuffle(seed, epoch, n_rows))
        self._totals.clear()
        for first in range(0, n_rows, self.chunk_rows):
            rows = self._order[first : first + self.chunk_rows]
            draws = self._draws(seed, epoch, first, len(rows))
            for start, stop, batch_size in self._pieces(len(rows)):
                steps, run = self._steps_of((stop - start) // batch_size, batch_size, optimizer)
                steps.load(rows[start:stop], [layer[:, start:stop] for layer in draws], self._lane)
                run()
                self._lane.pace()
                yield

    def trained(self) -> tuple[Tensor, ...]:
        """Returns what the epoch's own steps measured, dropout on: [K] float64 a metric."""
        return self._totals.means(len(self.data.x_train))

    def _pieces(self, n_rows: int) -> Iterator[tuple[int, int, int]]:
        """Yields which rows of a chunk to take at once, and how many of them a step takes."""
        whole = n_rows - n_rows % self.batch_size
        for start in range(0, whole, self._piece_rows):
            yield start, min(start + self._piece_rows, whole), self.batch_size
        if whole < n_rows:
            yield whole, n_rows, n_rows - whole

    def _draws(self, seed: int, epoch: int, first: int, n_rows: int) -> list[Tensor]:
        if not self.pack.has_dropout:
            return []
        return [
            streams.dropout_draws(seed, epoch, first, layer, n_rows, width)
            for layer, width in enumerate(self.pack.widths)
        ]

    def _steps_of(
        self, n_steps: int, batch_size: int, optimizer: PackedAdamW
    ) -> tuple[Steps, Callable[[], None]]:
        key = (n_steps, batch_size)
        if key not in self._steps:
            spaces = self._training_spaces
            if batch_size not in spaces:
                spaces[batch_size] = TrainingWorkspace(self.pack, batch_size)
            steps = Steps(spaces[batch_size], self.data, n_steps, self._totals, optimizer.step)
            self._steps[key] = (steps, self._graphs.replayable(steps.run))
        return self._steps[key]

    def evaluate(self) -> tuple[Tensor, ...]:
        """Scores every member on the validation rows, dropout off: [K] float64 a metric."""
        if self._evaluation is None:
            widest = max(*self.pack.widths, self.data.task.n_outputs)
            n_rows = sizes.evaluation_rows(len(self.pack), widest, self.pack.device.type)
            made = Evaluation(self.pack, self.data, n_rows, lambda n: Workspace(self.pack, n))
            self._evaluation = made, self._graphs.replayable(made.run)
        evaluation, run = self._evaluation
        run()
        return evaluation.scores.means()
