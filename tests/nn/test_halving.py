"""Successive halving: the rungs, who goes on, and that those who do are left alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nn_harness import History, Table, order, run

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.device.rows import Rows
from mlops.nn.records import EpochRecord, Outcome, TrialResult
from mlops.nn.tasks.classification import Classification
from mlops.nn.tasks.metrics import METRICS
from mlops.nn.training import Halving, PackTraining


@pytest.mark.parametrize(
    ("eta", "min_epochs", "epochs", "expected"),
    [
        (2, 1, 1, []),
        (2, 1, 2, [1]),
        (2, 1, 8, [1, 2, 4]),
        (2, 1, 9, [1, 2, 4, 8]),
        (2, 5, 50, [5, 10, 20, 40]),
        (3, 1, 27, [1, 3, 9]),
        (3, 1, 28, [1, 3, 9, 27]),
        (3, 1, 243, [1, 3, 9, 27, 81]),
        (4, 10, 50, [10, 40]),
        (5, 1, 125, [1, 5, 25]),
        (10, 1, 1000, [1, 10, 100]),
        (2, 50, 50, []),
        (2, 80, 50, []),
    ],
)
def test_rungs(eta: int, min_epochs: int, epochs: int, expected: list[int]) -> None:
    assert Halving(eta, min_epochs).rungs(epochs) == expected


@given(eta=st.integers(2, 10), min_epochs=st.integers(1, 50), epochs=st.integers(1, 100_000))
def test_rungs_are_all_the_powers_below_the_end(eta: int, min_epochs: int, epochs: int) -> None:
    expected = []
    rung = min_epochs
    while rung < epochs:
        expected.append(rung)
        rung *= eta
    assert Halving(eta, min_epochs).rungs(epochs) == expected


# Two depths and two batch sizes: four groups, one pack.
MEMBERS = [
    Hyperparameters(
        hidden_dims=dims, batch_size=batch_size, learning_rate=rate, epochs=12, dropout=0.1
    )
    for dims in ((16,), (12, 8))
    for batch_size in (32, 64)
    for rate in (1e-6, 1e-2, 1e-3)
]


@pytest.fixture(scope="module")
def unpruned(noisy: Table) -> History:
    return run(MEMBERS, noisy)


def expected_ends(
    history: History, metric: str, members: list[Hyperparameters], halving: Halving
) -> dict[int, int]:
    """Prunes on paper: the epoch at which each trial ends, from the records up to each rung."""
    ends = {number: member.epochs for number, member in enumerate(members)}
    rung = halving.min_epochs
    while rung < max(member.epochs for member in members):
        running = [number for number, end in ends.items() if end > rung]
        best = {n: min(order(metric, r) for r in history.records[n][:rung]) for n in running}
        ranked = sorted(running, key=best.__getitem__)
        for number in ranked[math.ceil(len(ranked) / halving.eta) :]:
            ends[number] = rung
        rung *= halving.eta
    return ends


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "halving",
    [Halving(2, 1), Halving(2, 3), Halving(3, 2), Halving(4, 11), Halving(2, 12)],
    ids=str,
)
def test_the_best_of_the_whole_pack_survive(
    unpruned: History, noisy: Table, halving: Halving, metric: str
) -> None:
    history = run(MEMBERS, noisy, metric=metric, halving=halving)
    ends = expected_ends(history, metric, MEMBERS, halving)
    assert {number: result.epochs for number, result in history.results.items()} == ends
    for number, end in ends.items():
        pruned = end < MEMBERS[number].epochs
        assert history.results[number].outcome is (Outcome.PRUNED if pruned else Outcome.COMPLETED)
        # Compaction changes who is there, not what is computed, up to the rounding of sums.
        for now, before in zip(history.records[number], unpruned.records[number], strict=False):
            assert now.train_loss == pytest.approx(before.train_loss, abs=1e-5)
            assert now.val_loss == pytest.approx(before.val_loss, abs=1e-5)
            assert now.val_accuracy == pytest.approx(before.val_accuracy, abs=1.001 / 100)


def test_members_that_are_done_leave_before_the_rung(noisy: Table) -> None:
    epochs = [2, 4, 12, 12, 12, 12]
    members = [replace(MEMBERS[3 + i], epochs=n) for i, n in enumerate(epochs)]
    history = run(members, noisy, halving=Halving(2, 4))
    ends = expected_ends(history, "val_accuracy", members, Halving(2, 4))
    assert {number: result.epochs for number, result in history.results.items()} == ends
    assert history.results[0].outcome is history.results[1].outcome is Outcome.COMPLETED
    reasons = [r.reason for r in history.results.values() if r.reason]
    assert sorted(reasons) == [
        "rung at epoch 4: 3 of 4, 2 go on",
        "rung at epoch 4: 4 of 4, 2 go on",
        "rung at epoch 8: 2 of 2, 1 go on",
    ]


def unbalanced(n: int = 1600) -> Table:
    """A table on which members say the common class of every row for some epochs: all tie."""
    rng = np.random.default_rng(3)
    y = (np.arange(n) % 8 == 0).astype(np.int64)
    x = (rng.normal(size=(n, 6)) + 0.4 * y[:, None]).astype(np.float32)
    return Table(x[: n // 2], y[: n // 2], x[n // 2 :], y[n // 2 :], Classification(range(2)))


def test_equal_scores_at_a_rung() -> None:
    table, halving = unbalanced(), Halving(3, 2)
    rates = np.geomspace(3e-3, 8e-3, 9).tolist()
    members = [replace(MEMBERS[0], learning_rate=rate) for rate in rates]
    rows = Rows.on("cpu", *table)
    training = PackTraining(members, rows, seed=0, numbers=range(20, 29), halving=halving)
    events = [event for part in training.events() for event in part]
    first = {e.trial: e for e in events if isinstance(e, EpochRecord) and e.epoch == 2}
    assert len({record.val_accuracy for record in first.values()}) == 1
    stopped = {e.trial for e in events if isinstance(e, TrialResult) and e.epochs == 2}
    lowest = sorted(first)[:3]
    surest = sorted(first, key=lambda number: first[number].val_loss)[:3]
    assert set(lowest) != set(surest)
    assert first.keys() - stopped == set(surest)
    for result in (event for event in events if isinstance(event, TrialResult)):
        own = [e for e in events if isinstance(e, EpochRecord) and e.trial == result.trial]
        equal = [record for record in own if record.val_accuracy == result.score]
        surest_epoch = min(equal, key=lambda record: (record.val_loss, -record.epoch))
        assert result.best_epoch == surest_epoch.epoch


def test_a_pruned_trial_keeps_its_score_and_weights(noisy: Table) -> None:
    history = run(MEMBERS, noisy, halving=Halving(2, 3))
    pruned = [r for r in history.results.values() if r.outcome is Outcome.PRUNED]
    assert pruned
    for result in pruned:
        assert result.score is not None
        assert result.weights
