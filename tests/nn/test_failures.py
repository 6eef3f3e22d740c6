"""A member whose loss is not finite fails with that reason; the others go on untouched."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from nn_harness import History, Table, run

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.records import EpochRecord, Outcome
from mlops.nn.training import Halving, fit

HEALTHY = Hyperparameters(hidden_dims=(12, 6), epochs=10, dropout=0.1)
DIVERGING = replace(HEALTHY, learning_rate=1e30)
REASON = re.compile(r"(train|val)_loss became (nan|inf) in epoch \d+")


def assert_failed(history: History, number: int) -> None:
    result = history.results[number]
    assert result.outcome is Outcome.FAILED
    assert REASON.fullmatch(result.reason or "")
    assert result.reason is not None and result.reason.endswith(f" {result.epochs}")
    assert len(history.records[number]) == result.epochs < HEALTHY.epochs


def test_the_others_go_on_bit_identically(noisy: Table, one_group: None) -> None:
    with_failure = run([HEALTHY, DIVERGING, HEALTHY], noisy)
    # The same shape of pack, in which the neighbour leaves at the same epoch but in good health.
    epochs = with_failure.results[1].epochs
    without = run([HEALTHY, replace(HEALTHY, epochs=epochs), HEALTHY], noisy)
    assert_failed(with_failure, 1)
    for number in (0, 2):
        assert with_failure.records[number] == without.records[number]
        assert with_failure.results[number].outcome is Outcome.COMPLETED


@pytest.mark.parametrize("members", [[DIVERGING], [DIVERGING] * 4])
def test_all_members_may_fail(noisy: Table, members: list[Hyperparameters]) -> None:
    history = run(members, noisy)
    for number in range(len(members)):
        assert_failed(history, number)


def test_a_failure_after_good_epochs_has_no_score(noisy: Table) -> None:
    # Decay with a factor far from 0 makes the weights grow from epoch to epoch, then overflow.
    member = replace(HEALTHY, learning_rate=1.0, weight_decay=3.5, epochs=200, hidden_dims=(4,))
    history = run([member], noisy)
    result = history.results[0]
    assert result.outcome is Outcome.FAILED
    assert 1 < result.epochs < 200
    finite = [np.isfinite([r.train_loss, r.val_loss]).all() for r in history.records[0]]
    assert finite == [True] * (result.epochs - 1) + [False]


@pytest.mark.parametrize("part", ["x_train", "x_val"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_numbers_in_the_table_fail_all_members(noisy: Table, part: str, value: float) -> None:
    broken = getattr(noisy, part).copy()
    broken[3, 2] = value
    history = run([HEALTHY, replace(HEALTHY, hidden_dims=(7,))], noisy._replace(**{part: broken}))
    assert set(history.outcomes().values()) == {Outcome.FAILED}
    expected = "train_loss" if part == "x_train" else "val_loss"
    assert all(r.reason and r.reason.startswith(expected) for r in history.results.values())


def test_failed_members_do_not_count_at_a_rung(noisy: Table, one_group: None) -> None:
    members = [HEALTHY, DIVERGING, replace(HEALTHY, learning_rate=1e-6), DIVERGING]
    history = run(members, noisy, halving=Halving(eta=2, min_epochs=5))
    assert history.outcomes() == {
        0: Outcome.COMPLETED,
        1: Outcome.FAILED,
        2: Outcome.PRUNED,
        3: Outcome.FAILED,
    }
    assert history.results[2].reason == "rung at epoch 5: 2 of 2, 1 go on"


def test_records_of_a_failed_epoch_come_before_its_result(noisy: Table) -> None:
    items = list(fit([HEALTHY, DIVERGING], *noisy, seed=0))
    kinds = [(item.trial, isinstance(item, EpochRecord)) for item in items]
    assert kinds.index((1, False)) > max(i for i, kind in enumerate(kinds) if kind == (1, True))
