"""What a device does many times over: some training steps, an evaluation.

Each program works on buffers of its own, makes none that last and never waits for the device, so
that a GPU can replay it as a CUDA graph (`mlops.nn.device.graphs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlops.nn import streams
from mlops.nn.device.graphs import Lane
from mlops.nn.device.rows import Rows
from mlops.nn.device.workspace import TrainingWorkspace, Workspace
from mlops.nn.packed import PackedMLP
from mlops.nn.tasks.cross_entropy import Totals


class Steps:
    """A number of training steps: `load` brings their rows in, `run` takes them.

    Args:
        space: Buffers for one step.
        rows: The table.
        n_steps: S.
        totals: What to add losses and hits to.
        step: Updates the pack's parameters from its gradients.
    """

    def __init__(
        self,
        space: TrainingWorkspace,
        rows: Rows,
        n_steps: int,
        totals: Totals,
        step: Callable[[], None],
    ) -> None:
        pack = space.pack
        self.space, self.data, self.step = space, rows, step
        self.n_steps, self.batch_size = n_steps, space.n_rows
        n_rows = n_steps * space.n_rows
        device = pack.device
        self.order = torch.empty(n_rows, dtype=torch.int64, device=device)
        self.x = pack.rows_with_one(n_rows, rows.n_features)
        widths = pack.widths if pack.has_dropout else []
        self.draws = [torch.empty(w, n_rows, dtype=torch.int16, device=device) for w in widths]
        self.noise = [torch.empty(n_rows, w, device=device) for w in widths]
        smoothing = [member.label_smoothing for member in pack.members]
        self.loss = rows.task.loss(smoothing, n_steps, space.n_rows, totals)
        xs = self.x.view(n_steps, 1, self.batch_size, -1).expand(-1, len(pack), -1, -1)
        noise = [layer.split(self.batch_size) for layer in self.noise]
        self.inputs = list(
            zip(
                xs,
                xs.transpose(2, 3),
                zip(*noise, strict=True) if noise else [()] * n_steps,
                strict=True,
            )
        )

    def load(self, order: Tensor, draws: Sequence[Tensor], lane: Lane) -> None:
        """Brings in which rows to train on, and the draws of dropout.

        Args:
            order: [S * B] int64, on the device.
            draws: [width, S * B] int16 for each hidden layer, on the host; none without dropout.
            lane: Where the steps are queued.
        """
        self.order.copy_(order)
        for buffer, layer in zip(self.draws, draws, strict=True):
            lane.fill(buffer, layer)

    def run(self) -> None:
        """Takes the steps."""
        self.x[:, : self.data.n_features] = self.data.x_train.index_select(0, self.order)
        for layer, draws in zip(self.noise, self.draws, strict=True):
            streams.as_noise(draws, layer)
        y = self.data.y_train.index_select(0, self.order)
        space, loss = self.space, self.loss
        for (x, x_t, noise), targets in zip(self.inputs, loss.targets(y), strict=True):
            space.noise = noise
            loss.gradient(targets, space.forward(x), out=space.output_gradients)
            space.backward(x_t)
            self.step()
        loss.add_up(y)


class Evaluation:
    """Scores of every member on the validation rows, dropout off.

    Args:
        pack: The pack.
        rows: The table.
        n_rows: Rows at a time.
        workspace: Returns buffers for a number of rows.

    Attributes:
        scores: What they score.
    """

    def __init__(
        self, pack: PackedMLP, rows: Rows, n_rows: int, workspace: Callable[[int], Workspace]
    ) -> None:
        self.pack, self.data = pack, rows
        self.scores = rows.task.pack_scores(len(pack), rows.y_val)
        self.parts = list(zip(rows.x_val.split(n_rows), rows.y_val.split(n_rows), strict=True))
        self.spaces = {len(x): workspace(len(x)) for x, _ in self.parts}
        self.staged = {n: pack.rows_with_one(n, rows.n_features) for n in self.spaces}

    def run(self) -> None:
        """Evaluates."""
        size, n_features = len(self.pack), self.data.n_features
        self.scores.clear()
        for x, y in self.parts:
            staged = self.staged[len(x)]
            staged[:, :n_features] = x
            self.scores.add(self.spaces[len(x)].forward(staged.expand(size, -1, -1)), y)
