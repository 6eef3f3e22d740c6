"""Passes of a pack over a table's rows: a training epoch, an evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlops.nn import streams
from mlops.nn.metrics import confusion_matrices
from mlops.nn.mlp import PackedMLP, TrainingWorkspace, Workspace
from mlops.nn.optimizer import PackedAdamW

# Rows staged at a time. Dropout noise is drawn by these chunks, so changing it changes results.
CHUNK_ROWS = 2048
# Elements of the widest buffer in an evaluation pass.
PASS_ELEMENTS = {"cpu": 2**19, "cuda": 2**25}


@dataclass(frozen=True)
class Rows:
    """The rows of a study on one device, float32 and int64."""

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    n_classes: int

    @classmethod
    def on(
        cls,
        device: str,
        x_train: np.ndarray,
        y_train: np.ndarray,
        x_val: np.ndarray,
        y_val: np.ndarray,
        n_classes: int,
    ) -> Rows:
        def on_device(array: np.ndarray) -> Tensor:
            return _as_tensor(array).to(device)

        return cls(
            on_device(x_train), on_device(y_train), on_device(x_val), on_device(y_val), n_classes
        )

    @property
    def n_features(self) -> int:
        return self.x_train.shape[1]


def _as_tensor(array: np.ndarray) -> Tensor:
    """Views an array as a tensor; nothing here writes to it, so a read-only one will do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


class Passes:
    """One pack's passes over the rows: a training epoch, an evaluation."""

    def __init__(self, pack: PackedMLP, rows: Rows) -> None:
        self.pack, self.data = pack, rows
        n_rows = len(rows.x_train)
        self.batch_size = min(pack.members[0].batch_size, n_rows)
        steps = max(1, min(CHUNK_ROWS // self.batch_size, n_rows // self.batch_size))
        self.chunk_rows = steps * self.batch_size
        self.smoothing = pack.column([member.label_smoothing for member in pack.members])
        self.has_smoothing = any(member.label_smoothing > 0 for member in pack.members)
        self._workspaces: dict[tuple[type, int], Workspace] = {}
        self._staged: dict[int, Tensor] = {}

    def _workspace(self, kind: type[Workspace], n_rows: int) -> Workspace:
        key = (kind, n_rows)
        if key not in self._workspaces:
            self._workspaces[key] = kind(self.pack, n_rows)
        return self._workspaces[key]

    def _stage(self, rows: Tensor) -> Tensor:
        """Copies rows beside a column of ones: [n, F] to [n, F + 1]."""
        n_rows, width = rows.shape
        if n_rows not in self._staged:
            self._staged[n_rows] = torch.ones(n_rows, width + 1, device=rows.device)
        staged = self._staged[n_rows]
        staged[:, :-1] = rows
        return staged

    def train(self, optimizer: PackedAdamW, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Trains for one epoch.

        Returns:
            Mean loss and accuracy over the epoch's own steps, dropout on: [K] float64 each.
        """
        n_rows = len(self.data.x_train)
        order = streams.shuffle(seed, epoch, n_rows).to(self.pack.device)
        losses = torch.zeros(len(self.pack), dtype=torch.float64, device=self.pack.device)
        hits = torch.zeros_like(losses)
        for first in range(0, n_rows, self.chunk_rows):
            rows = order[first : first + self.chunk_rows]
            noise = self._noise(seed, epoch, first, len(rows))
            whole = len(rows) - len(rows) % self.batch_size
            for start, stop, size in (
                (0, whole, self.batch_size),
                (whole, len(rows), len(rows) - whole),
            ):
                if start < stop:
                    part = [layer[start:stop] for layer in noise]
                    loss, hit = self._steps(optimizer, rows[start:stop], part, size)
                    losses += loss
                    hits += hit
        return losses / n_rows, hits / n_rows

    def _noise(self, seed: int, epoch: int, first: int, n_rows: int) -> list[Tensor]:
        if not self.pack.has_dropout:
            return []
        return [
            streams.dropout_noise(seed, epoch, first, layer, n_rows, width).to(self.pack.device)
            for layer, width in enumerate(self.pack.widths)
        ]

    def _steps(
        self, optimizer: PackedAdamW, rows: Tensor, noise: Sequence[Tensor], batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """Takes steps of `batch_size` rows, S of them; returns the sums of loss and hits: [K]."""
        space = self._workspace(TrainingWorkspace, batch_size)
        assert isinstance(space, TrainingWorkspace)
        x = self._stage(self.data.x_train.index_select(0, rows))
        y = self.data.y_train.index_select(0, rows)
        size, n_steps = len(self.pack), len(rows) // batch_size
        xs = x.view(n_steps, 1, batch_size, -1).expand(-1, size, -1, -1)
        targets = self._negative_targets(y, n_steps, batch_size)
        log_probs = torch.empty(
            n_steps, size, batch_size, self.data.n_classes, device=self.pack.device
        )
        noises = list(zip(*(layer.split(batch_size) for layer in noise), strict=True))
        for step, (x_step, x_t, target, log_prob) in enumerate(
            zip(xs, xs.transpose(2, 3), targets, log_probs, strict=True)
        ):
            if noises:
                space.noise = noises[step]
            torch.log_softmax(space.forward(x_step), 2, out=log_prob)
            # The gradient of the mean cross-entropy by the logits: (softmax - target) / B.
            gradient = torch.exp(log_prob, out=space.logit_gradients)
            torch.add(target, gradient, alpha=1.0 / batch_size, out=gradient)
            space.backward(x_t)
            optimizer.step()
        y = y.view(n_steps, 1, batch_size)
        picked = log_probs.gather(3, y.unsqueeze(3).expand(-1, size, -1, -1))
        hits = (log_probs.argmax(3) == y).sum((0, 2))
        return -picked.sum((0, 2, 3), dtype=torch.float64), hits

    def _negative_targets(self, y: Tensor, n_steps: int, batch_size: int) -> Tensor:
        """Returns -target / B for each step: [S, 1 or K, B, C] float32."""
        n_classes = self.data.n_classes
        targets = torch.nn.functional.one_hot(y, n_classes).float()
        targets = targets.view(n_steps, 1, batch_size, n_classes)
        if self.has_smoothing:
            targets = targets * (1.0 - self.smoothing) + self.smoothing / n_classes
        return targets / -batch_size

    def evaluate(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Scores every member on the same rows, dropout off.

        Args:
            x: [N, F] float32.
            y: [N] int64.

        Returns:
            Mean loss [K] float64 and confusion matrices [K, C, C] int64.
        """
        widest = max(*self.pack.widths, self.data.n_classes)
        elements = PASS_ELEMENTS[self.pack.device.type]
        n_rows = min(len(x), max(32, elements // (len(self.pack) * widest)))
        losses = torch.zeros(len(self.pack), dtype=torch.float64, device=self.pack.device)
        confusion = torch.zeros((), dtype=torch.int64, device=self.pack.device)
        for x_part, y_part in zip(x.split(n_rows), y.split(n_rows), strict=True):
            space = self._workspace(Workspace, len(x_part))
            staged = self._stage(x_part).expand(len(self.pack), -1, -1)
            log_probs = torch.log_softmax(space.forward(staged), 2)
            index = y_part.view(1, -1, 1).expand(len(self.pack), -1, -1)
            losses -= log_probs.gather(2, index).sum((1, 2), dtype=torch.float64)
            confusion = confusion + confusion_matrices(
                log_probs.argmax(2), y_part, self.data.n_classes
            )
        return losses / len(x), confusion
