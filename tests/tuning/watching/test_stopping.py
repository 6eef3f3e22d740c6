"""What stops a study, and for how long packs under way are waited for."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from mlops.nn.records import METRIC_NAMES
from mlops.tuning.watching import stopping
from mlops.tuning.watching.ledger import Ledger
from mlops.tuning.watching.stopping import INTERRUPT_SECONDS, RELEASE_SECONDS, Stop


class Clock:
    """Time as a test has it."""

    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def report(*scores: float, failed: bool = False) -> dict[str, Any]:
    """A trial's epochs; it may have failed after the last."""
    records = [
        {"trial": 3, "epoch": epoch, **dict.fromkeys(METRIC_NAMES, score)}
        for epoch, score in enumerate(scores, start=1)
    ]
    return {"records": records, "results": [{"trial": 3, "score": None}] if failed else []}


@pytest.mark.parametrize(
    ("metric", "scores", "failed", "stops"),
    [
        ("val_accuracy", (0.5, 0.9), False, True),
        ("val_accuracy", (0.95, 0.5), False, True),
        ("val_accuracy", (0.5, 0.89), False, False),
        ("val_accuracy", (0.95, math.nan), True, False),
        ("val_accuracy", (math.nan,), False, False),
        ("val_loss", (0.95, 0.9), False, True),
        ("val_loss", (0.95, 0.91), False, False),
        ("val_loss", (), False, False),
    ],
)
def test_a_target_is_looked_for_in_every_epoch(
    metric: str, scores: tuple[float, ...], failed: bool, stops: bool
) -> None:
    stop = Stop(Ledger(metric, 4), target=0.9)
    assert not stop.stop_all()
    assert not stop("pack", report(*scores, failed=failed))
    assert stop.stop_all() is stops
    assert ("target was reached" in (stop.reason or "")) is stops


def test_no_target_is_never_reached() -> None:
    stop = Stop(Ledger("val_accuracy", 4))
    stop("pack", report(1.0))
    assert not stop.stop_all()


def test_a_budget_that_is_spent_before_anything_is_trained(clock: Clock) -> None:
    table = Ledger("val_accuracy", 4)
    stop = Stop(table, deadline=clock.now)
    clock.now += 1
    assert not stop.stop_all()
    table.epochs = 1
    assert stop.stop_all()
    assert stop.reason == "the time_budget was spent"


def test_it_does_not_wait_for_ever_for_that(clock: Clock) -> None:
    stop = Stop(Ledger("val_accuracy", 4), deadline=clock.now)
    clock.now += RELEASE_SECONDS + 1
    assert stop.stop_all()


@pytest.mark.parametrize(
    ("by_user", "seconds"), [(True, INTERRUPT_SECONDS), (False, RELEASE_SECONDS)]
)
def test_packs_have_some_time_to_release_their_trials(
    clock: Clock, by_user: bool, seconds: float
) -> None:
    stop = Stop(Ledger("val_accuracy", 4))
    stop.by_user, stop.reason = by_user, "a test"
    assert stop.stop_all()
    assert not stop.is_over
    clock.now += seconds - 1
    assert not stop.is_over
    clock.now += 2
    assert stop.is_over
