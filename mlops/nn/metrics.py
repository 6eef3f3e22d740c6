"""Classification metrics from a confusion matrix, for one model or a pack of them."""

from __future__ import annotations

import torch
from torch import Tensor


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


def accuracy(confusion: Tensor) -> Tensor:
    """Returns the share of rows on the diagonal: [..., C, C] int64 to [...] float64."""
    diagonal = confusion.diagonal(dim1=-2, dim2=-1).sum(-1)
    return diagonal.double() / confusion.sum((-2, -1))


def macro_f1(confusion: Tensor) -> Tensor:
    """Returns the mean of the classes' F1: [..., C, C] int64 to [...] float64.

    A class that is neither present nor predicted is left out, as scikit-learn's `f1_score` with
    `average="macro"` does.
    """
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    seen = (confusion.sum(-1) + confusion.sum(-2)).double()
    f1 = 2.0 * hits / seen.clamp_min(1.0)
    return f1.sum(-1) / (seen > 0).sum(-1)
