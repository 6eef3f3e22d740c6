"""Successive halving: the rungs, who goes on, and that those who do are left alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nn_harness import History, Table, run

from mlops.hyperparameters import Hyperparameters
from mlops.nn.records import METRICS, Outcome
from mlops.nn.training import Halving


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
    sign = 1 if METRICS[metric] == "max" else -1
    ends = {number: member.epochs for number, member in enumerate(members)}
    rung = halving.min_epochs
    while rung < max(member.epochs for member in members):
        running = [number for number, end in ends.items() if end > rung]
        best = {
            number: max(sign * getattr(r, metric) for r in history.records[number][:rung])
            for number in running
        }
        order = sorted(running, key=lambda number: (-best[number], number))
        for number in order[math.ceil(len(order) / halving.eta) :]:
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


def test_a_tie_goes_to_the_lower_trial_number(noisy: Table) -> None:
    # A rate this small leaves the predictions of both where they were, and the seeds are shared.
    still = replace(MEMBERS[0], learning_rate=1e-12)
    one_row = noisy.head(64, 1)
    history = run([still] * 8, one_row, numbers=[7, 6, 5, 4, 3, 2, 1, 0], halving=Halving(4, 6))
    whole = run([still] * 8, one_row, numbers=[7, 6, 5, 4, 3, 2, 1, 0])
    score = {number: result.score for number, result in whole.results.items()}
    assert len(set(score.values())) < 8
    best = sorted(score, key=lambda number: (-(score[number] or 0), number))[:2]
    assert {n for n, o in history.outcomes().items() if o is Outcome.COMPLETED} == set(best)


def test_a_pruned_trial_keeps_its_score_and_weights(noisy: Table) -> None:
    history = run(MEMBERS, noisy, halving=Halving(2, 3))
    pruned = [r for r in history.results.values() if r.outcome is Outcome.PRUNED]
    assert pruned
    for result in pruned:
        assert result.score is not None
        assert result.weights
