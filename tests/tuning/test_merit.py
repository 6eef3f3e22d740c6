"""One order for a trial's epochs, rungs, packs, the table and what is resumed."""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.device.rows import Rows
from mlops.nn.group import Conditions, Run
from mlops.nn.records import EpochRecord, Outcome, TrialResult, merit
from mlops.nn.tasks.classification import Classification
from mlops.nn.tasks.metrics import METRICS
from mlops.nn.training import PackTraining
from mlops.tracking.study.logger import StudyLogger
from mlops.tracking.study.record import TrialRecord
from mlops.tracking.study.spool import Spool
from mlops.tracking.study.storage import weights_name
from mlops.tuning import resuming
from mlops.tuning.training.checkpoint import Told
from mlops.tuning.training.options import PackOptions
from mlops.tuning.training.trial import PackTrial
from mlops.tuning.watching.ledger import Ledger

DEFAULT = Hyperparameters(hidden_dims=(2,), epochs=6)
ROWS = Rows.on(
    "cpu", *[np.zeros((4, 2), np.float32), np.zeros(4, np.int64)] * 2, Classification([0, 1])
)

# Few values, so that most trials tie.
epochs = st.lists(
    st.tuples(st.sampled_from([0.5, 0.75]), st.sampled_from([0.1, 0.2])), min_size=1, max_size=4
)


@dataclass
class Pack:
    """What a callback sees of a Tune trial."""

    config: dict[str, Any]


def records_of(trial: int, values: list[tuple[float, float]]) -> list[EpochRecord]:
    return [
        EpochRecord(trial, epoch, 0.5, 0.5, loss, accuracy, accuracy)
        for epoch, (accuracy, loss) in enumerate(values, start=1)
    ]


def result_of(best: EpochRecord, metric: str, epochs: int) -> TrialResult:
    weights = {"layer": torch.full((1,), float(best.trial))}
    score = best.metrics[metric]
    ended = (Outcome.COMPLETED, None, epochs, best.epoch, score, best.metrics, 0.1)
    return TrialResult(best.trial, *ended, weights)


def report_of(result: TrialResult) -> dict[str, Any]:
    fields = {**asdict(result), "outcome": "completed", "node": "here", "device": "cpu"}
    del fields["weights"]
    best = {"trial": result.trial, "weights": f"weights of {result.trial}".encode()}
    return {"records": [], "results": [fields], "best": best}


@pytest.mark.parametrize("metric", METRICS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), numbers=st.permutations(range(3, 9)))
def test_all_that_is_ranked_is_in_one_order(
    tmp_path: Path, metric: str, data: st.DataObject, numbers: list[int]
) -> None:
    def key(record: EpochRecord) -> tuple[float, ...]:
        return merit(metric, record.metrics, record.epoch, record.trial)

    told = {n: records_of(n, data.draw(epochs)) for n in sorted(numbers)}
    best = {n: min(records, key=key) for n, records in told.items()}
    expected = sorted(best, key=lambda n: key(best[n]))

    # A member's best epoch, and who goes on at a rung.
    conditions = Conditions(ROWS, 0, metric)
    training = PackTraining([DEFAULT] * len(told), ROWS, seed=0, numbers=numbers, metric=metric)
    next(training.events())  # so that there are weights to leave with
    runs: list[Run] = [run for group in training._groups for run in group.runs]
    for run in runs:
        run.best_epoch, run.best_metrics = 0, {}
        for record in told[run.number]:
            if conditions.is_better(record, run):
                run.best_epoch, run.best_metrics = record.epoch, record.metrics
        assert run.best_epoch == best[run.number].epoch
    eta = data.draw(st.integers(2, 4))
    pruned = {result.trial for result in training._prune(eta)}
    assert told.keys() - pruned == set(expected[: math.ceil(len(told) / eta)])

    # The best of a pack; the table, and what is kept of it, in whatever order trials end.
    results = {n: result_of(best[n], metric, len(told[n])) for n in numbers}
    worker = PackTrial.__new__(PackTrial)
    worker._options = PackOptions(0, metric, None, 1, 1)
    worker._told, worker._settled, worker._place = Told(), frozenset(), {}
    table = Ledger(metric, len(told))
    nowhere: Future[Any] = Future()
    nowhere.set_exception(OSError("no store"))
    spool = Spool(tmp_path / "study")
    logger = StudyLogger(nowhere, "study", metric, spool)
    members = [{"number": n, "params": {}, "duplicate_of": None} for n in numbers]
    pack: Any = Pack({"pack": 0, "trials": members, "settled": []})
    table.on_trial_start(trial=pack)
    logger.log_trial_start(pack)
    for n in numbers:
        worker._take(results[n])
        logger.log_trial_result(0, pack, report_of(results[n]))
        table.on_trial_result(trial=pack, result=report_of(results[n]))
    first = expected[0]
    assert worker._told.best is results[first]
    assert [row.trial for row in table.leaders(len(told))] == expected
    assert table.best is table.rows[first]
    assert table.weights == {first: f"weights of {first}".encode()}
    assert spool._kept[weights_name(first)] == f"weights of {first}".encode()

    # What is on record of it.
    on_record = {
        n: TrialRecord({}, result=report_of(result)["results"][0]) for n, result in results.items()
    }
    resumed = Ledger(metric, len(told), on_record)
    assert [row.trial for row in resumed.leaders(len(told))] == expected
    assert resumed.best is resumed.rows[first]
    assert resuming._best(on_record, metric) == first
