"""What a device does many times over: some training steps, an evaluation.

Each program works on buffers of its own, makes none that last and never waits for the device, so
that a GPU can replay it as a CUDA graph (`mlops.nn.device.graphs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mlops.nn import streams
from mlops.nn.metrics import Counts
from mlops.nn.mlp import PackedMLP, TrainingWorkspace, Workspace

if TYPE_CHECKING:
    from mlops.nn.device.graphs import Lane
    from mlops.nn.device.passes import Rows


class Totals(NamedTuple):
    """Sums over the rows of an epoch, which its steps add to: [K] float64 each."""

    losses: Tensor
    hits: Tensor

    @classmethod
    def of(cls, pack: PackedMLP) -> Totals:
        """Makes sums of nothing yet."""
        losses = torch.zeros(len(pack), dtype=torch.float64, device=pack.device)
        return cls(losses, torch.zeros_like(losses))

    def clear(self) -> None:
        """Begins an epoch."""
        for total in self:
            total.zero_()


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
        self.space, self.data, self.totals, self.step = space, rows, totals, step
        self.n_steps, self.batch_size = n_steps, space.n_rows
        n_rows = n_steps * space.n_rows
        device = pack.device
        self.order = torch.empty(n_rows, dtype=torch.int64, device=device)
        self.x = pack.rows_with_one(n_rows, rows.n_features)
        widths = pack.widths if pack.has_dropout else []
        self.draws = [torch.empty(w, n_rows, dtype=torch.int16, device=device) for w in widths]
        self.noise = [torch.empty(n_rows, w, device=device) for w in widths]
        self.log_probs = torch.empty(
            n_steps, len(pack), self.batch_size, rows.n_classes, device=device
        )
        self.classes = torch.arange(rows.n_classes, device=device)
        self.smoothing = pack.column([member.label_smoothing for member in pack.members])
        self.has_smoothing = any(member.label_smoothing > 0 for member in pack.members)
        xs = self.x.view(n_steps, 1, self.batch_size, -1).expand(-1, len(pack), -1, -1)
        noise = [layer.split(self.batch_size) for layer in self.noise]
        self.inputs = list(
            zip(
                xs,
                xs.transpose(2, 3),
                self.log_probs,
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
        space = self.space
        for (x, x_t, log_prob, noise), target in zip(
            self.inputs, self._negative_targets(y), strict=True
        ):
            space.noise = noise
            torch.log_softmax(space.forward(x), 2, dtype=torch.float32, out=log_prob)
            # The gradient of the mean cross-entropy by the logits: (softmax - target) / B.
            gradient = torch.exp(log_prob, out=space.logit_gradients)
            torch.add(target, gradient, alpha=1.0 / self.batch_size, out=gradient)
            space.backward(x_t)
            self.step()
        y = y.view(self.n_steps, 1, self.batch_size)
        index = y.unsqueeze(3).expand(-1, self.log_probs.shape[1], -1, -1)
        picked = self.log_probs.gather(3, index)
        self.totals.losses.sub_(picked.sum((0, 2, 3), dtype=torch.float64))
        self.totals.hits.add_((self.log_probs.argmax(3) == y).sum((0, 2)))

    def _negative_targets(self, y: Tensor) -> Tensor:
        """Returns -target / B for each step: [S, 1 or K, B, C] float32."""
        # Not by `one_hot`, which looks at the values.
        targets = (y.unsqueeze(1) == self.classes).float()
        targets = targets.view(self.n_steps, 1, self.batch_size, -1)
        if self.has_smoothing:
            targets = targets * (1.0 - self.smoothing) + self.smoothing / len(self.classes)
        return targets / -self.batch_size


class Evaluation:
    """Scores of every member on the validation rows, dropout off.

    Args:
        pack: The pack.
        rows: The table.
        n_rows: Rows at a time.
        workspace: Returns buffers for a number of rows.

    Attributes:
        losses: Sums of the losses: [K] float64.
        counts: Hits and predictions of each class: [K, C] each.
    """

    def __init__(
        self, pack: PackedMLP, rows: Rows, n_rows: int, workspace: Callable[[int], Workspace]
    ) -> None:
        self.pack, self.data = pack, rows
        self.losses = torch.zeros(len(pack), dtype=torch.float64, device=pack.device)
        self.counts = Counts.of(rows.y_val, len(pack), rows.n_classes)
        self.parts = list(zip(rows.x_val.split(n_rows), rows.y_val.split(n_rows), strict=True))
        self.spaces = {len(x): workspace(len(x)) for x, _ in self.parts}
        self.staged = {n: pack.rows_with_one(n, rows.n_features) for n in self.spaces}

    def run(self) -> None:
        """Evaluates."""
        size, n_features = len(self.pack), self.data.n_features
        self.losses.zero_()
        self.counts.clear()
        for x, y in self.parts:
            staged = self.staged[len(x)]
            staged[:, :n_features] = x
            logits = self.spaces[len(x)].forward(staged.expand(size, -1, -1))
            log_probs = torch.log_softmax(logits, 2, dtype=torch.float32)
            index = y.view(1, -1, 1).expand(size, -1, -1)
            self.losses.sub_(log_probs.gather(2, index).sum((1, 2), dtype=torch.float64))
            self.counts.add(log_probs.argmax(2), y)
