"""Classification metrics from counts of what was predicted, for one model or a pack of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Counts(NamedTuple):
    """How often each class was predicted, rightly and at all, and how often it was there.

    All that accuracy and F1 need: a confusion matrix has C times as many elements.

    Attributes:
        hits: [..., C] int64.
        predicted: [..., C] int64.
        actual: [..., C] int64.
    """

    hits: Tensor
    predicted: Tensor
    actual: Tensor

    @classmethod
    def of(cls, actual: Tensor, size: int, n_classes: int) -> Counts:
        """Counts the classes of some rows, and no predictions yet.

        Args:
            actual: [N] int64, the class of each row.
            size: K, models.
            n_classes: C.
        """
        there = torch.zeros(n_classes, dtype=torch.int64, device=actual.device)
        there.scatter_add_(0, actual, torch.ones_like(actual))
        hits = torch.zeros(size, n_classes, dtype=torch.int64, device=actual.device)
        return cls(hits, torch.zeros_like(hits), there.expand(size, -1))

    @classmethod
    def of_matrices(cls, confusion: Tensor) -> Counts:
        """Takes them out of confusion matrices, as `confusion_matrices` makes them."""
        return cls(confusion.diagonal(dim1=-2, dim2=-1), confusion.sum(-2), confusion.sum(-1))

    def clear(self) -> None:
        """Forgets predictions."""
        self.hits.zero_()
        self.predicted.zero_()

    def add(self, predicted: Tensor, actual: Tensor) -> None:
        """Counts predictions.

        Args:
            predicted: [K, N] int64, the class each model predicts.
            actual: [N] int64.
        """
        # Not by `bincount`, for which the host has to wait for a GPU.
        right = (predicted == actual).long()
        self.hits.scatter_add_(1, actual.expand_as(predicted), right)
        self.predicted.scatter_add_(1, predicted, torch.ones_like(predicted))


def confusion_matrices(predicted: Tensor, actual: Tensor, n_classes: int) -> Tensor:
    """Counts what was taken for what.

    Args:
        predicted: [K, N] int64, the class each member predicts.
        actual: [N] int64.
        n_classes: C.

    Returns:
        [K, C, C] int64: member, actual class, predicted class.
    """
    size = predicted.shape[0]
    member = torch.arange(size, device=predicted.device).unsqueeze(1)
    cell = (member * n_classes + actual) * n_classes + predicted
    # Not by `bincount`, for which the host has to wait for a GPU.
    counts = torch.zeros(size * n_classes * n_classes, dtype=torch.int64, device=predicted.device)
    counts.scatter_add_(0, cell.flatten(), torch.ones_like(cell).flatten())
    return counts.view(size, n_classes, n_classes)


def accuracy(counts: Counts) -> Tensor:
    """Returns the share of rows that are hits: [...] float64."""
    return counts.hits.sum(-1).double() / counts.actual.sum(-1)


def macro_f1(counts: Counts) -> Tensor:
    """Returns the mean of the classes' F1: [...] float64.

    A class that is neither present nor predicted is left out, as scikit-learn's `f1_score` with
    `average="macro"` does.
    """
    seen = (counts.actual + counts.predicted).double()
    f1 = 2.0 * counts.hits.double() / seen.clamp_min(1.0)
    return f1.sum(-1) / (seen > 0).sum(-1)
