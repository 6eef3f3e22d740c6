"""The order of epochs and trials."""

from __future__ import annotations

import itertools
import math

import pytest

from mlops.nn.records import NO_MERIT, merit
from mlops.nn.tasks.metrics import METRICS

# Name, accuracy, loss, epoch, trial: the best first.
BY_ACCURACY = [
    ("higher score", 0.9, 0.8, 1, 9),
    ("lower loss", 0.8, 0.1, 2, 8),
    ("later epoch", 0.8, 0.2, 7, 7),
    ("lower number", 0.8, 0.2, 6, 3),
    ("higher number", 0.8, 0.2, 6, 4),
    ("lower score", 0.7, 0.0, 9, 0),
]


def key(accuracy: float, loss: float, epoch: int, trial: int) -> tuple[float, ...]:
    metrics = {"val_accuracy": accuracy, "val_loss": loss}
    return merit("val_accuracy", metrics, epoch, trial)


def test_score_then_loss_then_later_epoch_then_lower_number() -> None:
    for rows in itertools.permutations(BY_ACCURACY):
        assert sorted(rows, key=lambda row: key(*row[1:])) == BY_ACCURACY


def test_of_equal_losses_the_later_epoch_and_then_the_lower_number() -> None:
    rows = [(0.1, 2, 5), (0.2, 7, 8), (0.2, 6, 3), (0.2, 6, 4), (0.3, 9, 0)]
    for some in itertools.permutations(rows):
        found = sorted(some, key=lambda row: merit("val_loss", {"val_loss": row[0]}, *row[1:]))
        assert found == rows


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_wins(metric: str, value: float) -> None:
    finite = merit(metric, {metric: 0.0, "val_loss": 1e30}, 1, 10**9)
    broken = merit(metric, {"val_loss": 0.0, metric: value}, 9, 0)
    assert finite < broken == NO_MERIT == merit(metric, {}, 0, 0)


@pytest.mark.parametrize(
    ("metric", "scores"),
    [("val_accuracy", {0.9: True, 0.95: True, 0.89: False, math.nan: False}),
     ("val_loss", {0.9: True, 0.95: False, 0.89: True, math.nan: False})],
)  # fmt: skip
def test_reaches(metric: str, scores: dict[float, bool]) -> None:
    assert {score: METRICS[metric].reaches(score, 0.9) for score in scores} == scores
