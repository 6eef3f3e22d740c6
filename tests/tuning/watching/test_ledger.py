"""The driver's table of trials: reports in, rows out."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies
from safetensors.torch import load

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.device.rows import Rows
from mlops.nn.records import EpochRecord, Outcome, TrialResult
from mlops.nn.tasks.classification import Classification
from mlops.nn.tasks.metrics import METRICS
from mlops.tracking.study.record import TrialRecord
from mlops.tuning.training.options import (
    REPORTS_A_SECOND,
    PackOptions,
    SharedRows,
    report_every,
)
from mlops.tuning.training.trial import PackTrial
from mlops.tuning.watching.ledger import Ledger, Row
from mlops.tuning.watching.progress import Progress
from mlops.tuning.watching.stopping import Stop

Report = dict[str, Any]


@dataclass
class Pack:
    """What a callback sees of a Tune trial."""

    config: dict[str, Any]
    error_file: str | None = None


def pack(
    number: int,
    *trials: int,
    duplicates: dict[int, int] | None = None,
    error_file: str | None = None,
) -> Pack:
    members = [
        {
            "number": trial,
            "params": Hyperparameters(epochs=2).to_dict(),
            "duplicate_of": (duplicates or {}).get(trial),
        }
        for trial in trials
    ]
    return Pack({"pack": number, "trials": members, "settled": []}, error_file)


def records(trial: int, *epochs: int) -> list[Report]:
    return [asdict(EpochRecord(trial, epoch, 0.5, 0.5, 0.5, 0.5, 0.5)) for epoch in epochs]


def ended(
    trial: int, score: float | None, outcome: Outcome = Outcome.COMPLETED, reason: str | None = None
) -> Report:
    metrics = {} if score is None else dict.fromkeys(METRICS, score)
    result = TrialResult(trial, outcome, reason, 2, 0 if score is None else 1, score, metrics, 0.1)
    place = {"node": "here", "device": "cpu"}
    return {**asdict(result), "outcome": outcome.value, **place}


def report(
    records: list[Report] | None = None,
    results: list[Report] | None = None,
    best: int | None = None,
) -> Report:
    last = (
        {} if best is None else {"best": {"trial": best, "weights": f"weights of {best}".encode()}}
    )
    return {"records": records or [], "results": results or [], "training_iteration": 1, **last}


def ledger(max_evals: int = 4, metric: str = "val_accuracy") -> Ledger:
    return Ledger(metric, max_evals)


def test_an_empty_study() -> None:
    table = ledger()
    assert (table.ended, table.best, table.ordered(), table.outcomes()) == (0, None, [], {})
    assert table.leaders(3) == []
    table.close()


def test_reports_in_table_out() -> None:
    table = ledger(max_evals=3)
    first, second = pack(0, 0, 1), pack(1, 2)
    table.on_trial_start(trial=second)
    table.on_trial_start(trial=first)
    assert table.ended == 0
    table.on_trial_result(trial=first, result=report(records(0, 1) + records(1, 1)))
    assert (table.epochs, table.ended) == (2, 0)
    table.on_trial_result(trial=second, result=report(records(2, 1, 2), [ended(2, 0.7)], best=2))
    assert (table.epochs, table.ended, table.best) == (4, 1, table.rows[2])
    table.on_trial_result(
        trial=first,
        result=report(records(0, 2) + records(1, 2), [ended(0, 0.9), ended(1, 0.8)], best=0),
    )
    table.close()
    assert [row.trial for row in table.ordered()] == [0, 1, 2]
    assert [row.score for row in table.ordered()] == [0.9, 0.8, 0.7]
    assert [row.trial for row in table.leaders(2)] == [0, 1]
    assert table.outcomes() == {"completed": 3}
    assert table.best is table.rows[0]
    assert table.weights == {0: b"weights of 0"}
    assert table.epochs == 6
    assert json.loads(json.dumps(table.rows[0].to_dict())) == {
        "trial": 0,
        "params": Hyperparameters(epochs=2).to_dict(),
        "duplicate_of": None,
        "outcome": "completed",
        "reason": None,
        "score": 0.9,
        "best_epoch": 1,
        "epochs": 2,
        "seconds": 0.1,
        "node": "here",
        "device": "cpu",
        "metrics": dict.fromkeys(METRICS, 0.9),
    }


def test_the_bulk_is_taken_out_of_a_report() -> None:
    table = ledger()
    table.on_trial_start(trial=pack(0, 0))
    result = report(records(0, 1), [ended(0, 0.5)], best=0) | {"scores": [[0, 0.5]]}
    table.on_trial_result(trial=pack(0, 0), result=result)
    assert result == {"training_iteration": 1, "scores": [[0, 0.5]]}


@pytest.mark.parametrize(
    ("metric", "scores", "best"),
    [
        ("val_accuracy", [0.1, 0.9, 0.5], 1),
        ("val_f1", [0.1, 0.9, 0.5], 1),
        ("val_loss", [0.1, 0.9, 0.5], 0),
        ("val_loss", [0.0, 0.9, 0.5], 0),
        ("val_accuracy", [0.5, 0.9, 0.9], 1),
        ("val_accuracy", [0.0, 0.0, 0.0], 0),
        ("val_accuracy", [None, 0.2, None], 1),
        ("val_accuracy", [None, None, None], None),
    ],
)
def test_the_best_is_the_first_of_the_best_in_whatever_order(
    metric: str, scores: list[float | None], best: int | None
) -> None:
    for order in itertools.permutations(range(3)):
        table = ledger(3, metric)
        for n in range(3):
            table.on_trial_start(trial=pack(n, n))
        for n in order:
            outcome = Outcome.FAILED if scores[n] is None else Outcome.COMPLETED
            last = None if scores[n] is None else n
            table.on_trial_result(
                trial=pack(n, n), result=report([], [ended(n, scores[n], outcome)], best=last)
            )
        if best is None:
            assert (table.best, table.weights) == (None, {})
        else:
            assert table.best is table.rows[best]
            assert table.weights == {best: f"weights of {best}".encode()}


def test_a_pack_started_again_is_not_counted_twice() -> None:
    table = ledger(max_evals=2)
    one = pack(0, 0, 1)
    table.on_trial_start(trial=one)
    table.on_trial_result(
        trial=one, result=report(records(0, 1, 2) + records(1, 1), [ended(0, 0.9)])
    )
    table.on_trial_start(trial=one)  # its worker died
    assert table.rows[0].outcome is Outcome.COMPLETED
    table.on_trial_result(
        trial=one, result=report(records(0, 1, 2) + records(1, 1), [ended(0, 0.9)])
    )
    table.on_trial_result(trial=one, result=report(records(1, 2), [ended(1, 0.8)], best=0))
    assert table.epochs == 4
    assert (table.ended, len(table.rows), table.outcomes()) == (2, 2, {"completed": 2})
    assert (table.best, table.weights) == (table.rows[0], {0: b"weights of 0"})


def test_a_pack_that_dies_for_good_fails_what_it_leaves_open(tmp_path: Path) -> None:
    table = ledger(max_evals=3)
    error = tmp_path / "error.txt"
    error.write_text("Failure # 1\n...\nMemoryError: no more\n\n")
    dead = pack(0, 0, 1, 2, duplicates={2: 1}, error_file=str(error))
    table.on_trial_start(trial=dead)
    table.on_trial_result(trial=dead, result=report([], [ended(0, 0.9)]))
    table.on_trial_error(trial=dead)
    assert table.outcomes() == {"completed": 1}  # the others are tried again, alone
    table.on_trial_error(trial=pack(0, 1, error_file=str(error)))
    assert table.rows[0].outcome is Outcome.COMPLETED
    for trial in (1, 2):
        assert table.rows[trial].outcome is Outcome.FAILED
        assert table.rows[trial].reason == "its worker failed: MemoryError: no more"
    table.close()
    assert table.outcomes() == {"completed": 1, "failed": 2}


def test_a_pack_that_dies_before_it_starts_is_in_the_table() -> None:
    """Tune calls `on_trial_error` without `on_trial_start` when a worker cannot be set up."""
    table = ledger(max_evals=2)
    table.on_trial_error(trial=pack(0, 0))
    table.on_trial_error(trial=pack(1, 1))
    assert table.outcomes() == {"failed": 2}


def test_the_best_of_a_pack_that_died_later_has_its_weights() -> None:
    """A trial's weights come with its result, not with the end of its pack."""
    table = ledger(max_evals=3)
    alive, dead = pack(0, 0), pack(1, 1, 2)
    for one in (alive, dead):
        table.on_trial_start(trial=one)
    table.on_trial_result(trial=alive, result=report([], [ended(0, 0.8)], best=0))
    table.on_trial_result(trial=dead, result=report([], [ended(1, 0.9)], best=1))
    table.on_trial_error(trial=dead)
    table.close()
    assert table.best is table.rows[1]
    assert table.weights == {1: b"weights of 1"}


def test_a_pack_started_again_does_not_take_the_weights_of_its_first_trial() -> None:
    table = ledger(max_evals=2)
    one = pack(0, 0, 1)
    table.on_trial_start(trial=one)
    table.on_trial_result(trial=one, result=report([], [ended(0, 0.8)], best=0))
    table.on_trial_result(trial=one, result=report([], [ended(1, 0.9)], best=1))
    table.on_trial_start(trial=one)
    table.on_trial_result(trial=one, result=report([], [ended(0, 0.8)], best=0))
    assert (table.best, table.weights) == (table.rows[1], {1: b"weights of 1"})
    table.on_trial_result(trial=one, result=report([], [ended(1, 0.9)], best=1))
    assert (table.best, table.weights) == (table.rows[1], {1: b"weights of 1"})


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.PRUNED, Outcome.FAILED])
@pytest.mark.parametrize("when", ["same pack", "known", "ended"])
def test_a_duplicate_is_settled_with_its_original(outcome: Outcome, when: str) -> None:
    table = ledger(max_evals=2)
    copy = {1: 0}
    first = pack(0, 0, 1, duplicates=copy) if when == "same pack" else pack(0, 0)
    table.on_trial_start(trial=first)
    if when == "known":
        table.on_trial_start(trial=pack(1, 1, duplicates=copy))
    score = None if outcome is Outcome.FAILED else 0.5
    best = None if score is None else 0
    result = report(records(0, 1, 2), [ended(0, score, outcome, "why")], best=best)
    table.on_trial_result(trial=first, result=result)
    if when == "ended":
        # A pack of duplicates alone has nothing to train and nothing to report.
        table.on_trial_start(trial=pack(1, 1, duplicates=copy))
        table.on_trial_result(trial=pack(1, 1, duplicates=copy), result=report())
    table.close()
    original, duplicate = table.ordered()
    assert duplicate.outcome is outcome
    assert (duplicate.score, duplicate.reason, duplicate.epochs) == (score, "why", original.epochs)
    assert duplicate.metrics == original.metrics
    assert duplicate.duplicate_of == 0
    assert table.ended == 2
    assert duplicate not in table.leaders(2)
    assert table.best is (None if score is None else original)
    assert table.epochs == 2


class Unscanned(dict[int, Row]):
    """Rows that are looked up, never looked through."""

    def _scanned(self, *_: object) -> Any:
        raise AssertionError("all trials are looked through")

    __iter__ = keys = values = items = _scanned


def test_a_report_takes_as_long_after_thousands_of_trials() -> None:
    """Whatever is asked at a report, at a step or for the display looks through no trials."""
    table = ledger(max_evals=100)
    for n in range(10):
        copies = {2 * n + 1: 0} if n else {}
        table.on_trial_start(trial=pack(n, 2 * n, 2 * n + 1, duplicates=copies))
    table.rows = Unscanned(table.rows)
    display = Progress(table, "study", io.StringIO())
    stop = Stop(table, target=0.99)
    for n in range(10):
        last = report(records(2 * n, 1), [ended(2 * n, n / 10)], best=2 * n)
        table.on_trial_result(trial=pack(n, 2 * n), result=last)
        assert not stop.stop_all()
        assert display._line() and display._panel()
    table.on_trial_error(trial=pack(10, 20))
    assert table.leaders(2)[0].trial == 18
    assert table.outcomes() == {"completed": 19, "failed": 1}


@settings(max_examples=200, deadline=None)
@given(data=strategies.data())
def test_counts_are_those_of_the_rows(data: strategies.DataObject) -> None:
    """In whatever order packs start, report, die and are started again."""
    originals = data.draw(
        strategies.lists(strategies.none() | strategies.integers(0, 3), max_size=8)
    )
    copies = {n: o for n, o in enumerate(originals, 4) if o is not None}
    packs = [pack(n, 2 * n, 2 * n + 1, duplicates=copies) for n in range((4 + len(originals)) // 2)]
    table = ledger()
    for _ in range(data.draw(strategies.integers(0, 20))):
        one: Any = data.draw(strategies.sampled_from(packs))
        table.on_trial_start(trial=one)
        if data.draw(strategies.integers(0, 4)) == 0:
            table.on_trial_error(trial=one)
        score = data.draw(strategies.sampled_from([0.1, 0.5, 0.9, None]))
        own = [m["number"] for m in one.config["trials"] if m["duplicate_of"] is None]
        outcome = Outcome.FAILED if score is None else Outcome.PRUNED
        results = [ended(n, score, outcome) for n in own[: data.draw(strategies.integers(0, 2))]]
        table.on_trial_result(trial=one, result=report([], results))
        check(table)
    table.close()
    check(table)
    assert all(row.outcome for row in table.rows.values())


def check(table: Ledger) -> None:
    rows = table.ordered()
    outcomes = [row.outcome for row in rows]
    own = [row for row in rows if row.duplicate_of is None and row.outcome is not None]
    scored = [row for row in own if row.score is not None]
    best_first = sorted(scored, key=lambda row: (-(row.score or 0.0), row.trial))
    assert table.outcomes() == {o.value: outcomes.count(o) for o in Outcome if o in outcomes}
    assert table.ended == sum(o not in (None, Outcome.INTERRUPTED) for o in outcomes)
    assert table.epochs_of_ended == sum(row.epochs for row in own)
    assert table.leaders(3) == best_first[:3]
    assert table.best is (best_first[0] if best_first else None)
    for row in rows:
        if row.duplicate_of is not None and row.duplicate_of in table.rows:
            original = table.rows[row.duplicate_of]
            assert (row.outcome, row.score, row.epochs) == (
                original.outcome,
                original.score,
                original.epochs,
            )


@pytest.mark.parametrize(
    ("workers", "seconds"), [(1, 1), (4, 1), (8, 2), (20, 5), (32, 8), (500, 25)]
)
def test_many_workers_report_more_seldom(workers: int, seconds: float) -> None:
    assert report_every(workers) == seconds
    assert workers / report_every(workers) <= REPORTS_A_SECOND


@pytest.mark.parametrize(("every", "reports"), [(0.0, 6), (1e9, 1)])
def test_a_pack_reports_as_often_as_it_is_to(
    every: float, reports: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever that is, the driver hears of each epoch, and at once of a pack's end."""
    _, told = trained({0: Hyperparameters(epochs=5)}, monkeypatch, every=every)
    assert len(told) == reports
    assert [r["epoch"] for one in told for r in one["records"]] == [1, 2, 3, 4, 5]
    assert [one["done"] for one in told] == [False] * (reports - 1) + [True]


def test_a_trial_that_was_interrupted_may_be_the_best_but_has_not_ended() -> None:
    table = ledger(max_evals=3)
    one = pack(0, 0, 1)
    table.on_trial_start(trial=one)
    table.on_trial_result(trial=one, result=report([], [ended(0, 0.8)], best=0))
    cut = ended(1, 0.9, Outcome.INTERRUPTED, "the time_budget was spent")
    table.on_trial_result(trial=one, result=report([], [cut], best=1))
    table.close()
    assert (table.ended, table.outcomes()) == (1, {"completed": 1, "interrupted": 1})
    assert (table.best, table.weights) == (table.rows[1], {1: b"weights of 1"})
    assert table.rows[1].reason == "the time_budget was spent"


def test_a_table_that_does_not_fit_a_device_fails_the_trials_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not the worker, with a traceback, and each trial again alone."""

    def on(*_: Any) -> Rows:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")

    monkeypatch.setattr(Rows, "on", on)
    assert_no_room(*trained({3: Hyperparameters(), 4: Hyperparameters()}, monkeypatch))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_table_that_does_not_fit_a_gpu_fails_the_trials_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[torch.Tensor] = []
    setup = PackTrial._start

    def start(worker: PackTrial, config: dict[str, Any]) -> None:
        # Of its share nothing is left; the smallest piece that torch takes is 2 MB.
        with suppress(torch.OutOfMemoryError):
            while True:
                held.append(torch.empty(2**21, dtype=torch.uint8, device="cuda"))
        setup(worker, config)

    monkeypatch.setattr(PackTrial, "_start", start)
    try:
        trials = {3: Hyperparameters(), 4: Hyperparameters()}
        assert_no_room(*trained(trials, monkeypatch, gpus=0.01))
    finally:
        held.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def assert_no_room(one: Pack, reports: list[Report]) -> None:
    assert [report["done"] for report in reports] == [True]
    table = ledger(max_evals=2)
    table.on_trial_start(trial=one)
    table.on_trial_result(trial=one, result=reports[0])
    for number in (3, 4):
        row = table.rows[number]
        assert (row.outcome, row.epochs, row.score) == (Outcome.FAILED, 0, None)
        assert row.reason is not None
        assert "does not fit the device's memory: CUDA out of memory" in row.reason
        assert row.reason.startswith("the table, 0 MB encoded, ")
        assert "\n" not in row.reason


def test_what_is_open_at_the_end_is_interrupted() -> None:
    table = ledger(max_evals=3)
    one = pack(0, 0, 1, 2, duplicates={2: 1})
    table.on_trial_start(trial=one)
    table.on_trial_result(trial=one, result=report(records(1, 1), [ended(0, 0.9)]))
    table.close()
    assert table.outcomes() == {"completed": 1, "interrupted": 2}
    assert table.rows[1].reason == table.rows[2].reason == "the study was stopped"


def test_a_study_that_never_proposed_its_last_pack_is_interrupted() -> None:
    table = ledger(max_evals=2)
    table.on_trial_start(trial=pack(0, 0))
    table.on_trial_result(trial=pack(0, 0), result=report([], [ended(0, 0.9)], best=0))
    table.close()
    assert table.outcomes() == {"completed": 1}


def trained(
    trials: dict[int, Hyperparameters],
    monkeypatch: pytest.MonkeyPatch,
    settled: Sequence[int] = (),
    every: float = 1.0,
    gpus: float = 0.0,
) -> tuple[Pack, list[Report]]:
    """Trains a pack as a worker does, on rows that any configuration tells apart; without Ray."""
    members = [
        {"number": n, "params": given.to_dict(), "duplicate_of": None}
        for n, given in trials.items()
    ]
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 120)
    x = (rng.normal(size=(120, 4)) * 0.1 + y[:, None] * 4 - 2).astype(np.float32)
    monkeypatch.setattr("mlops.tuning.training.trial.ray.get", lambda rows: rows)
    rows: Any = (x[:80], y[:80], x[80:], y[80:])
    one = Pack({"pack": 0, "trials": members, "settled": list(settled)})
    worker = PackTrial.__new__(PackTrial)
    options = PackOptions(0, "val_accuracy", None, 5, threads=1, gpus=gpus, report_every=every)
    worker.setup(one.config, SharedRows(rows, Classification([0, 1])), options)
    reports = [worker.step()]
    while not reports[-1]["done"]:
        reports.append(worker.step())
    return one, reports


@pytest.mark.parametrize(
    "trials",
    [
        # The later trial is in a group that ends first; all are right about every row.
        {3: Hyperparameters(epochs=9), 4: Hyperparameters(epochs=3)},
        {3: Hyperparameters(batch_size=64), 4: Hyperparameters(batch_size=8)},
        {3: Hyperparameters((8, 8, 8)), 4: Hyperparameters((16,)), 5: Hyperparameters((8,))},
        {3: Hyperparameters(), 4: Hyperparameters(), 5: Hyperparameters(activation="tanh")},
    ],
    ids=["epochs", "batch size", "depth", "activation"],
)
def test_the_weights_that_arrive_are_those_of_the_best_when_scores_are_equal(
    trials: dict[int, Hyperparameters], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = {n: replace(given, learning_rate=0.01) for n, given in trials.items()}
    one, reports = trained(fast, monkeypatch)
    table = ledger(max_evals=len(trials))
    table.on_trial_start(trial=one)
    for received in reports:
        table.on_trial_result(trial=one, result=dict(received))
    assert {row.score for row in table.ordered()} == {1.0}
    best = min(table.ordered(), key=lambda row: row.metrics["val_loss"])
    assert table.best is best
    last = [received["best"]["trial"] for received in reports if "best" in received][-1]
    assert last == best.trial
    weights = load(table.weights[last])
    shapes = [list(tensor.shape) for tensor in weights.values() if tensor.ndim == 2]
    widths = [4, *table.best.params["hidden_dims"], 2]
    assert sorted(shapes) == sorted([b, a] for a, b in itertools.pairwise(widths))


def test_a_settled_trial_does_not_keep_another_ones_weights_from_arriving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It failed on record and is the best of its pack now: the best on record is another."""
    trials = {3: Hyperparameters(learning_rate=0.01), 4: Hyperparameters((8,), learning_rate=0.01)}
    one, reports = trained(trials, monkeypatch, settled=[3])
    failed = ended(3, None, Outcome.FAILED)
    del failed["weights"]
    table = Ledger("val_accuracy", 2, {3: TrialRecord(trials[3].to_dict(), result=failed)})
    table.on_trial_start(trial=one)
    for received in reports:
        table.on_trial_result(trial=one, result=dict(received))
    assert (table.rows[3].outcome, table.rows[4].score) == (Outcome.FAILED, 1.0)
    assert table.best is table.rows[4]
    shapes = [list(tensor.shape) for tensor in load(table.weights[4]).values() if tensor.ndim == 2]
    assert sorted(shapes) == [[2, 8], [8, 4]]


def test_a_pack_of_duplicates_alone_ends_at_once() -> None:
    worker = PackTrial.__new__(PackTrial)
    worker._options = PackOptions(0, "val_accuracy", eta=None, min_epochs=5, threads=1)
    worker._start(pack(1, 5, 6, duplicates={5: 0, 6: 0}).config)
    assert worker._step() == {"records": [], "results": [], "done": True, "scores": []}
