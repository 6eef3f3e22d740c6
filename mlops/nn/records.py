"""What is known of a trial: one record an epoch, one result at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from mlops.nn.tasks.metrics import METRICS

if TYPE_CHECKING:
    from torch import Tensor

METRIC_NAMES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_f1")


# The version of `merit`, on record with each study: one of another is not gone on with.
MERIT = 2
# Sorts after everything that has a merit.
NO_MERIT = (math.inf,)


def merit(metric: str, metrics: Mapping[str, float], epoch: int, trial: int) -> tuple[float, ...]:
    """Sorts a trial's epoch, or a trial by its best epoch, among others: the better first.

    The one order of a study: for each trial's best epoch, for rungs, for the best trial and for the
    table's leaders. Equal scores are common on small tables, where the loss still tells apart who
    is sure of what is right.

    Args:
        metric: The study's metric.
        metrics: The epoch's; empty where there is none.
        epoch: The epoch.
        trial: The trial's number.

    Returns:
        The key to sort by: the metric, then lower `val_loss`, later epoch and lower number;
        `NO_MERIT` if what it sorts by is not finite.
    """
    score, loss = metrics.get(metric, math.nan), metrics.get("val_loss", math.nan)
    key = (METRICS[metric].ascending(score), loss, -epoch, trial)
    return key if math.isfinite(sum(key)) else NO_MERIT


class Outcome(str, Enum):
    """How a trial ended.

    COMPLETED: trained for all its epochs. PRUNED: stopped at a rung, its score counts. FAILED:
    has no score, for a stated reason. INTERRUPTED: the study was stopped while it was under way;
    its score is the best so far, and a study that is resumed trains it to its end.
    """

    COMPLETED = "completed"
    PRUNED = "pruned"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class EpochRecord:
    """One trial after one epoch. Losses are mean cross-entropies in nats, without smoothing."""

    trial: int
    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_f1: float

    @property
    def metrics(self) -> dict[str, float]:
        """The measured values by name."""
        return {name: getattr(self, name) for name in METRIC_NAMES}


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        trial: The trial's number.
        outcome: How it ended.
        reason: Why, unless completed.
        epochs: Epochs trained.
        best_epoch: The epoch with the best score, from 1; 0 when there is none.
        score: The study's metric at that epoch; None when there is none.
        metrics: All metrics at that epoch.
        seconds: The trial's share of its pack's training time.
        weights: The weights after that epoch, as `MLP.state_dict()` has them.
    """

    trial: int
    outcome: Outcome
    reason: str | None
    epochs: int
    best_epoch: int
    score: float | None
    metrics: dict[str, float]
    seconds: float
    weights: dict[str, Tensor] = field(repr=False, default_factory=dict)
