"""StudyLogger: what Tune tells of packs, as child runs in a real SQLite store."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ray.air.integrations.mlflow import MLflowLoggerCallback
from study_harness import made

from mlops.configuration.hyperparameters import NAMES, Hyperparameters
from mlops.errors import TrackingError
from mlops.nn.records import METRIC_NAMES, EpochRecord, Outcome, TrialResult
from mlops.tracking.store.store import Store
from mlops.tracking.study.logger import StudyLogger, failure_reason
from mlops.tracking.study.spool import Spool
from mlops.tracking.study.writing import writer as writer_module

if TYPE_CHECKING:
    from mlflow.entities import Run

Report = dict[str, Any]


@dataclass
class Pack:
    """What a callback sees of a Tune trial."""

    config: dict[str, Any]
    error_file: str | None = None


def as_file(error: str) -> str:
    """Writes an error where Tune does, in the trial's folder."""
    path = Path(f"error-{time.time_ns()}.txt")
    path.write_text(error)
    return str(path)


def pack(number: int, *trials: int, duplicates: dict[int, int] | None = None) -> Pack:
    members = [
        {
            "number": trial,
            "params": Hyperparameters(epochs=3, batch_size=trial + 1).to_dict(),
            "duplicate_of": (duplicates or {}).get(trial),
        }
        for trial in trials
    ]
    return Pack({"pack": number, "trials": members})


def records(trial: int, *epochs: int) -> list[Report]:
    return [
        asdict(EpochRecord(trial, epoch, 1 / epoch, 0.5, 2 / epoch, 0.1 * epoch, trial + 0.5))
        for epoch in epochs
    ]


def ended(
    trial: int,
    score: float | None = 0.3,
    outcome: Outcome = Outcome.COMPLETED,
    reason: str | None = None,
) -> Report:
    result = TrialResult(trial, outcome, reason, 3, 0 if score is None else 3, score, {}, 1.25)
    return {**asdict(result), "outcome": outcome.value}


def report(records: list[Report] | None = None, *results: Report) -> Report:
    return {"records": records or [], "results": list(results), "training_iteration": 1}


@pytest.fixture
def logger(module_store: Store, parent: str) -> StudyLogger:
    return StudyLogger(made(module_store, parent), "tune-1", "val_accuracy")


class Tune:
    """Calls a callback as Tune's loop does."""

    def __init__(self, logger: StudyLogger) -> None:
        self.logger = logger
        logger.setup(stop=None, num_samples=3)

    def start(self, pack: Pack) -> None:
        self.logger.on_trial_start(iteration=0, trials=[], trial=pack)

    def report(self, pack: Pack, *results: Report) -> None:
        for result in results:
            self.logger.on_trial_result(iteration=0, trials=[], trial=pack, result=result)

    def complete(self, pack: Pack) -> None:
        self.logger.on_trial_complete(iteration=0, trials=[], trial=pack)

    def give_up(self, pack: Pack, error: str) -> None:
        pack.error_file = as_file(error)
        self.logger.on_trial_error(iteration=0, trials=[], trial=pack)


@pytest.fixture
def tune(logger: StudyLogger) -> Tune:
    return Tune(logger)


def children(store: Store, parent: str) -> dict[int, Run]:
    found = store.client.search_runs(
        [store.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000
    )
    by_trial = {int(run.data.tags["trial"]): run for run in found}
    assert len(by_trial) == len(found)
    assert "RUNNING" not in {run.info.status for run in found}
    return dict(sorted(by_trial.items()))


def history(store: Store, run: Run, name: str) -> list[tuple[int, float]]:
    points = store.client.get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in points)


def assert_epochs(store: Store, run: Run, trial: int, epochs: int) -> None:
    expected = records(trial, *range(1, epochs + 1))
    for name in METRIC_NAMES:
        assert history(store, run, name) == [(r["epoch"], r[name]) for r in expected]


def test_it_is_tunes_callback() -> None:
    assert issubclass(StudyLogger, MLflowLoggerCallback)


def test_a_pack_is_a_run_a_trial(tune: Tune, module_store: Store, parent: str) -> None:
    one = pack(4, 8, 9)
    tune.start(one)
    tune.report(
        one,
        report(records(8, 1) + records(9, 1)),
        report(records(8, 2, 3) + records(9, 2), ended(8)),
        report(records(9, 3), ended(9)),
    )
    tune.complete(one)
    tune.logger.close()
    runs = children(module_store, parent)
    assert list(runs) == [8, 9]
    for trial, run in runs.items():
        assert run.info.run_name == f"trial-{trial:04d}"
        assert run.info.status == "FINISHED"
        tags = {"study": "tune-1", "trial": str(trial), "pack": "4", "outcome": "completed"}
        own = {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")}
        result = json.loads(own.pop("result"))
        assert own == tags
        assert (result["trial"], result["score"], result["epochs"]) == (trial, 0.3, 3)
        expected = Hyperparameters(epochs=3, batch_size=trial + 1).to_dict()
        assert run.data.params == {name: str(expected[name]) for name in NAMES}
        assert run.data.params["hidden_dims"] == "[64, 32]"
        assert run.data.metrics.keys() == {
            *METRIC_NAMES,
            "seconds",
            "best_val_accuracy",
            "best_epoch",
        }
        assert run.data.metrics["best_val_accuracy"] == 0.3
        assert_epochs(module_store, run, trial, 3)


def test_outcomes(tune: Tune, module_store: Store, parent: str) -> None:
    one = pack(0, 0, 1, 2, 3)
    tune.start(one)
    tune.report(
        one,
        report(
            [],
            ended(0),
            ended(1, outcome=Outcome.PRUNED, reason="7th of 9 at epoch 5"),
            ended(2, None, Outcome.FAILED, "val_loss is nan at epoch 2"),
        ),
    )
    tune.logger.close()
    seen = {
        trial: (run.info.status, run.data.tags["outcome"], run.data.tags.get("reason"))
        for trial, run in children(module_store, parent).items()
    }
    assert seen == {
        0: ("FINISHED", "completed", None),
        1: ("FINISHED", "pruned", "7th of 9 at epoch 5"),
        2: ("FAILED", "failed", "val_loss is nan at epoch 2"),
        3: ("KILLED", "interrupted", "the study was stopped"),
    }
    failed = children(module_store, parent)[2]
    assert failed.data.metrics == {"seconds": 1.25}


@pytest.mark.parametrize("when", ["same pack", "under way", "afterwards"])
@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.FAILED])
def test_a_duplicate_is_a_copy(
    when: str, outcome: Outcome, tune: Tune, module_store: Store, parent: str
) -> None:
    copies = {1: 0, 2: 0}
    first = pack(0, 0, 1, 2, duplicates=copies) if when == "same pack" else pack(0, 0)
    second = pack(1, 1, 2, duplicates=copies)
    tune.start(first)
    if when == "under way":
        tune.start(second)
        tune.report(second, report())
        tune.complete(second)
    score = 0.3 if outcome is Outcome.COMPLETED else None
    tune.report(first, report(records(0, 1, 2, 3), ended(0, score, outcome, "why")))
    tune.complete(first)
    if when == "afterwards":
        tune.start(second)
        tune.report(second, report())
        tune.complete(second)
    tune.logger.close()
    runs = children(module_store, parent)
    assert list(runs) == [0, 1, 2]
    assert "duplicate_of" not in runs[0].data.tags
    for trial in (1, 2):
        assert runs[trial].data.tags["duplicate_of"] == "0"
        assert runs[trial].data.tags["outcome"] == outcome.value
        assert runs[trial].data.tags["reason"] == "why"
        assert runs[trial].info.status == runs[0].info.status
        assert runs[trial].data.metrics == runs[0].data.metrics
        assert_epochs(module_store, runs[trial], 0, 3)


def test_what_an_interrupted_trial_has_so_far_is_no_result(
    module_store: Store, parent: str, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "study")
    tune = Tune(StudyLogger(made(module_store, parent), "tune-1", "val_accuracy", spool))
    one = pack(0, 0, 1, duplicates={1: 0})
    tune.start(one)
    tune.report(one, report(records(0, 1, 2)))
    cut = ended(0, 0.2, Outcome.INTERRUPTED, "the time_budget was spent")
    tune.report(one, {**report([], cut), "best": {"trial": 0, "weights": b"so far"}})
    tune.complete(one)
    tune.logger.close()
    assert spool._kept == {}  # it ends with others
    for run in children(module_store, parent).values():
        tags = run.data.tags
        assert (run.info.status, tags["outcome"]) == ("KILLED", "interrupted")
        assert tags["reason"] == "the time_budget was spent"
        assert json.loads(tags["result_so_far"])["score"] == 0.2
        assert "result" not in tags
        assert run.data.metrics.keys() == set(METRIC_NAMES)
        assert_epochs(module_store, run, 0, 2)


def test_duplicates_of_what_is_interrupted_are_interrupted(
    tune: Tune, module_store: Store, parent: str
) -> None:
    one = pack(0, 0, 1, 2, duplicates={1: 0})
    tune.start(one)
    tune.report(one, report(records(0, 1) + records(2, 1)))
    tune.logger.close()
    runs = children(module_store, parent)
    assert {trial: run.info.status for trial, run in runs.items()} == dict.fromkeys(
        range(3), "KILLED"
    )
    assert_epochs(module_store, runs[1], 0, 1)


def test_a_pack_started_again_is_recorded_once(
    tune: Tune, module_store: Store, parent: str
) -> None:
    one = pack(0, 0, 1, 2, duplicates={2: 1})
    first = [
        report(records(0, 1, 2) + records(1, 1)),
        report(records(0, 3) + records(1, 2), ended(0)),
    ]
    again = [
        report(records(0, 1) + records(1, 1)),
        report(records(0, 2, 3) + records(1, 2, 3), ended(0), ended(1)),
    ]
    tune.start(one)
    tune.report(one, *first)
    tune.start(one)
    tune.report(one, *again)
    tune.complete(one)
    tune.logger.close()
    runs = children(module_store, parent)
    assert list(runs) == [0, 1, 2]
    for trial in (0, 1):
        assert runs[trial].info.status == "FINISHED"
        assert_epochs(module_store, runs[trial], trial, 3)
        assert history(module_store, runs[trial], "seconds") == [(0, 1.25)]
    assert_epochs(module_store, runs[2], 1, 3)


def test_a_pack_that_dies_for_good(tune: Tune, module_store: Store, parent: str) -> None:
    one, other = pack(0, 0, 1, 2, duplicates={2: 1}), pack(1, 3)
    tune.start(one)
    tune.start(other)
    tune.report(one, report(records(0, 1, 2, 3) + records(1, 1), ended(0)))
    error = "Failure # 3\nTraceback ...\nMemoryError: no more\n"
    tune.give_up(one, error)
    tune.give_up(pack(0, 1), error)  # tried again, alone
    tune.report(other, report(records(3, 1, 2, 3), ended(3)))
    tune.complete(other)
    tune.logger.close()
    runs = children(module_store, parent)
    seen = {trial: (run.info.status, run.data.tags.get("reason")) for trial, run in runs.items()}
    died = "its worker failed: MemoryError: no more"
    assert seen == {
        0: ("FINISHED", None),
        1: ("FAILED", died),
        2: ("FAILED", died),
        3: ("FINISHED", None),
    }
    assert_epochs(module_store, runs[1], 1, 1)


def test_a_pack_that_dies_before_it_starts_has_its_runs(
    tune: Tune, module_store: Store, parent: str
) -> None:
    """Tune calls `on_trial_error` without `on_trial_start` when a worker cannot be set up."""
    tune.give_up(pack(0, 0, 1), "OSError: no room\n")
    for trial in (0, 1):
        tune.give_up(pack(0, trial), "OSError: no room\n")
    tune.logger.close()
    runs = children(module_store, parent)
    assert {trial: run.data.tags["reason"] for trial, run in runs.items()} == dict.fromkeys(
        range(2), "its worker failed: OSError: no room"
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            "Failure # 1\nTraceback\n  ValueError: wrong \n\n",
            "its worker failed: ValueError: wrong",
        ),
        ("\n", "its worker failed"),
        (None, "its worker failed"),
    ],
)
def test_failure_reason(error: str | None, reason: str) -> None:
    dead = Pack({}, None if error is None else as_file(error))
    assert failure_reason(dead) == reason  # type: ignore[arg-type]


def test_failure_reason_without_its_file() -> None:
    assert failure_reason(Pack({}, "absent.txt")) == "its worker failed"  # type: ignore[arg-type]


def test_a_study_of_many_trials(tune: Tune, module_store: Store, parent: str) -> None:
    packs = [pack(n, *range(8 * n, 8 * n + 8)) for n in range(5)]
    for one in packs:
        tune.start(one)
    for epoch in range(1, 31):
        for one in packs:
            numbers = [member["number"] for member in one.config["trials"]]
            done = [ended(n) for n in numbers] if epoch == 30 else []
            tune.report(one, report([r for n in numbers for r in records(n, epoch)], *done))
    tune.logger.close()
    runs = children(module_store, parent)
    assert list(runs) == list(range(40))
    for trial in (0, 17, 39):
        assert_epochs(module_store, runs[trial], trial, 30)
    # The issue allows a millisecond a record; a busy machine gets some slack.
    assert 0 < tune.logger.seconds / (40 * 30) < 0.003


class Nobody:
    """A client of a store that never answers, and takes its time over it."""

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            time.sleep(0.1)
            raise ConnectionError("the store is away")

        return call


def test_tunes_loop_is_not_held_up_by_a_dead_store(
    module_store: Store, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.02)
    dead = replace(module_store)
    vars(dead)["client"] = Nobody()
    tune = Tune(StudyLogger(made(dead, parent), "tune-1", "val_accuracy"))
    started = time.monotonic()
    for n in range(20):
        one = pack(n, n)
        tune.start(one)
        tune.report(one, report(records(n, 1, 2, 3), ended(n)))
        tune.complete(one)
    assert time.monotonic() - started < 2.0
    with pytest.raises(TrackingError, match=r"20 trials are not fully recorded"):
        tune.logger.close()
    assert children(module_store, parent) == {}
