"""What is known of a trial: one record an epoch, one result at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

METRICS = {"val_accuracy": "max", "val_f1": "max", "val_loss": "min"}
"""What a study can optimize, and in which direction."""

METRIC_NAMES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_f1")


def rank(metric: str, score: float, trial: int) -> tuple[float, int]:
    """Sorts better scores first, and equal ones by trial number."""
    return (-score if METRICS[metric] == "max" else score), trial


class Outcome(str, Enum):
    """How a trial ended.

    COMPLETED: trained for all its epochs. PRUNED: stopped at a rung, its score counts. FAILED:
    has no score, for a stated reason. INTERRUPTED: the study was stopped while it was under way.
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
        score: The study's metric at that epoch; None when failed.
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
