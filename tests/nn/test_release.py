"""A pack that is left for now: its members' best so far, and that it goes on as if it had not."""

from __future__ import annotations

from typing import Any

import pytest
from nn_harness import Table, load, order
from test_snapshot import MEMBERS, OPTIONS, bits, through_json, training

from mlops.nn.records import EpochRecord, Outcome, TrialResult


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("after", [0, 1, 4])
def test_members_leave_with_their_best_so_far_and_go_on_from_a_snapshot(
    noisy: Table, options: dict[str, Any], after: int
) -> None:
    whole = [event for part in training(noisy, **options).events() for event in part]
    left = training(noisy, **options)
    events = left.events()
    told = [event for _ in range(after) for event in next(events)]
    snapshot = through_json(left.snapshot())
    results = {result.trial: result for result in left.release("the time_budget was spent")}
    ended = {event.trial for event in told if isinstance(event, TrialResult)}
    assert results.keys() == MEMBERS.keys() - ended
    metric = options.get("metric", "val_accuracy")
    for number, result in results.items():
        assert (result.outcome, result.reason) == (Outcome.INTERRUPTED, "the time_budget was spent")
        own = [e for e in told if isinstance(e, EpochRecord) and e.trial == number]
        assert result.epochs == len(own)
        if not own:
            assert (result.score, result.best_epoch, result.weights) == (None, 0, {})
            continue
        best = min(own, key=lambda record: order(metric, record))
        assert (result.best_epoch, result.score) == (best.epoch, getattr(best, metric))
        load(result, MEMBERS[number], noisy)
    rest = [event for part in training(noisy, snapshot, **options).events() for event in part]
    assert bits([*told, *rest]) == bits(whole)
