"""Cross-entropy of classes: the loss of a pack's steps, and what is told of rows that are scored.

Nothing here waits for the device but `ModelScores`, so that a GPU can replay it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mlops.nn.tasks.counts import Counts, accuracy, confusion_matrices, macro_f1


class Totals(NamedTuple):
    """Sums over the rows of an epoch, which its steps add to: [K] float64 each."""

    losses: Tensor
    hits: Tensor

    @classmethod
    def of(cls, members: int, device: torch.device) -> Totals:
        """Makes sums of nothing yet."""
        losses = torch.zeros(members, dtype=torch.float64, device=device)
        return cls(losses, torch.zeros_like(losses))

    def clear(self) -> None:
        """Begins an epoch."""
        for total in self:
            total.zero_()

    def means(self, n_rows: int) -> tuple[Tensor, ...]:
        """Returns `train_loss` and `train_accuracy`, dropout on: [K] float64 each."""
        return self.losses / n_rows, self.hits / n_rows


class CrossEntropy:
    """The loss of some steps: `targets`, then `gradient` step by step, then `add_up`.

    Args:
        n_classes: C.
        smoothing: Each member's label smoothing.
        n_steps: S.
        batch_size: B, the rows of a step.
        totals: What to add losses and hits to.
    """

    def __init__(
        self,
        n_classes: int,
        smoothing: Sequence[float],
        n_steps: int,
        batch_size: int,
        totals: Totals,
    ) -> None:
        device, shape = totals.losses.device, (n_steps, len(smoothing), batch_size, n_classes)
        self._batch_size, self._totals = batch_size, totals
        self._log_probs = torch.empty(shape, device=device)
        self._of_steps = list(self._log_probs)
        self._classes = torch.arange(n_classes, device=device)
        self._smoothing = torch.tensor(smoothing, dtype=torch.float32, device=device).view(-1, 1, 1)
        self._has_smoothing = any(value > 0 for value in smoothing)

    def targets(self, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Returns what `gradient` wants of each step, one after the other.

        Args:
            y: [S * B] int64, the steps' rows.
        """
        # Not by `one_hot`, which looks at the values.
        targets = (y.unsqueeze(1) == self._classes).float()
        targets = targets.view(len(self._of_steps), 1, self._batch_size, -1)
        if self._has_smoothing:
            targets = targets * (1.0 - self._smoothing) + self._smoothing / len(self._classes)
        return zip(self._of_steps, targets / -self._batch_size, strict=True)

    def gradient(self, step: tuple[Tensor, Tensor], outputs: Tensor, out: Tensor) -> None:
        """Fills in the gradient of the mean loss by the logits, (softmax - target) / B.

        Args:
            step: Of `targets`.
            outputs: [K, B, C], the logits.
            out: [K, B, C] float32.
        """
        log_probs, negative_target = step
        torch.log_softmax(outputs, 2, dtype=torch.float32, out=log_probs)
        torch.exp(log_probs, out=out)
        torch.add(negative_target, out, alpha=1.0 / self._batch_size, out=out)

    def add_up(self, y: Tensor) -> None:
        """Adds what the steps had for losses, without smoothing, and hits to the totals."""
        y = y.view(len(self._of_steps), 1, self._batch_size)
        index = y.unsqueeze(3).expand(-1, self._log_probs.shape[1], -1, -1)
        picked = self._log_probs.gather(3, index)
        self._totals.losses.sub_(picked.sum((0, 2, 3), dtype=torch.float64))
        self._totals.hits.add_((self._log_probs.argmax(3) == y).sum((0, 2)))


class PackScores:
    """What a pack's members score on some rows, added up part by part.

    Args:
        n_classes: C.
        members: K.
        actual: [N] int64, the class of every row.
    """

    def __init__(self, n_classes: int, members: int, actual: Tensor) -> None:
        self.losses = torch.zeros(members, dtype=torch.float64, device=actual.device)
        self.counts = Counts.of(actual, members, n_classes)
        self._n_rows = len(actual)

    def clear(self) -> None:
        """Forgets what was added."""
        self.losses.zero_()
        self.counts.clear()

    def add(self, outputs: Tensor, y: Tensor) -> None:
        """Adds rows: logits [K, B, C] and classes [B] int64."""
        log_probs = torch.log_softmax(outputs, 2, dtype=torch.float32)
        index = y.view(1, -1, 1).expand(len(outputs), -1, -1)
        self.losses.sub_(log_probs.gather(2, index).sum((1, 2), dtype=torch.float64))
        self.counts.add(log_probs.argmax(2), y)

    def means(self) -> tuple[Tensor, ...]:
        """Returns `val_loss`, `val_accuracy` and `val_f1`, once all rows are there: [K] each."""
        return self.losses / self._n_rows, accuracy(self.counts), macro_f1(self.counts)


class ModelScores:
    """What one model scores on some rows, added up part by part.

    Attributes:
        confusion: [C, C] int64, actual by predicted.
    """

    def __init__(self, n_classes: int) -> None:
        self.confusion = torch.zeros(n_classes, n_classes, dtype=torch.int64)
        self._loss = 0.0

    def add(self, outputs: Tensor, y: Tensor) -> None:
        """Adds rows: logits [B, C] and classes [B] int64."""
        self._loss += float(torch.nn.functional.cross_entropy(outputs, y, reduction="sum"))
        predicted = outputs.argmax(1, keepdim=True).T
        self.confusion += confusion_matrices(predicted, y, len(self.confusion))[0]

    def means(self) -> dict[str, float]:
        """Returns the value of each of the task's metrics, by name."""
        counts = Counts.of_matrices(self.confusion)
        return {
            "loss": self._loss / int(counts.actual.sum()),
            "accuracy": float(accuracy(counts)),
            "f1": float(macro_f1(counts)),
        }
