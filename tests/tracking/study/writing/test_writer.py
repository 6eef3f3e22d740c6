"""The background writer against a real SQLite store, well, slow, failing and dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from study_harness import end, made

from mlops.errors import RecordError, TrackingError
from mlops.nn.records import METRIC_NAMES, EpochRecord, Outcome
from mlops.tracking.store.inside.rows import write_runs
from mlops.tracking.store.store import SENDERS, Store, open_store
from mlops.tracking.study.record import read_trials
from mlops.tracking.study.writing import child_run
from mlops.tracking.study.writing import sender as sender_module
from mlops.tracking.study.writing import writer as writer_module
from mlops.tracking.study.writing.writer import RunWriter

if TYPE_CHECKING:
    from mlflow.entities import Run

PARAMS = {"hidden_dims": [64, 32], "learning_rate": 0.001, "batch_size": 32, "activation": "relu"}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.02)


class Client:
    """The real client, with every call counted and a chance to interfere before and after it."""

    def __init__(
        self,
        client: Any,
        before: Callable[[str], None] = lambda name: None,
        after: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._client, self._before, self._after = client, before, after
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    @property
    def _tracking_client(self) -> Any:
        """Not an SQL store, so that runs take the same way as to a server."""
        return SimpleNamespace(store=None)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append((name, arguments))
            self._before(name)
            result = method(*arguments, **named)
            self._after(name)
            return result

        return call

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


def through(store: Store, client: Client) -> Store:
    """The same store, reached through another client."""
    other = replace(store)
    vars(other)["client"] = client
    return other


def failing(times: float, *names: str) -> Callable[[str], None]:
    """Raises at the first calls of these names, or of any."""
    left = [times]

    def interfere(name: str) -> None:
        if left[0] > 0 and (not names or name in names):
            left[0] -= 1
            raise ConnectionError("the store is away")

    return interfere


def records(trial: int, epochs: int, first: int = 1) -> list[dict[str, Any]]:
    return [
        asdict(EpochRecord(trial, epoch, epoch + 0.1, epoch + 0.2, epoch + 0.3, 0.5, trial + 0.5))
        for epoch in range(first, epochs + 1)
    ]


def children(store: Store, parent: str) -> dict[int, Run]:
    """The child runs by trial; two of one trial are an error."""
    found = store.client.search_runs(
        [store.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000
    )
    by_trial = {int(run.data.tags["trial"]): run for run in found}
    assert len(by_trial) == len(found)
    return by_trial


def history(store: Store, run: Run, name: str) -> list[tuple[int, float]]:
    points = store.client.get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in points)


def assert_epochs(store: Store, run: Run, trial: int, epochs: int) -> None:
    """Every epoch is there once, with every value."""
    expected = records(trial, epochs)
    for name in METRIC_NAMES:
        assert history(store, run, name) == [(r["epoch"], r[name]) for r in expected]


def write_study(writer: RunWriter, trials: int = 3, epochs: int = 4) -> None:
    for trial in range(trials):
        writer.start(trial, PARAMS, {"pack": "0"})
    for trial in range(trials):
        writer.record(records(trial, epochs))
        end(writer, trial, Outcome.COMPLETED, metrics={"seconds": 1.5})


def assert_study(store: Store, parent: str, trials: int = 3, epochs: int = 4) -> None:
    runs = children(store, parent)
    assert sorted(runs) == list(range(trials))
    for trial, run in runs.items():
        assert run.info.status == "FINISHED"
        assert run.data.tags["outcome"] == "completed"
        assert run.data.params == {name: str(value) for name, value in PARAMS.items()}
        assert history(store, run, "seconds") == [(0, 1.5)]
        assert_epochs(store, run, trial, epochs)


def test_a_trial_is_a_run(module_store: Store, parent: str) -> None:
    before = time.time()
    writer = RunWriter(made(module_store, parent), {"study": "one"})
    writer.start(7, PARAMS, {"pack": "2"})
    writer.record(records(7, 3))
    writer.record(records(7, 5, first=4))
    metrics = {"seconds": 2.5, "best_val_accuracy": 0.5, "best_epoch": 3}
    end(writer, 7, Outcome.COMPLETED, metrics=metrics)
    writer.close()
    (run,) = children(module_store, parent).values()
    assert run.info.run_name == "trial-0007"
    assert run.info.experiment_id == module_store.experiment_id
    assert run.info.status == "FINISHED"
    assert before - 0.01 <= run.info.start_time / 1000 <= run.info.end_time / 1000 <= time.time()
    assert run.data.params == {
        "hidden_dims": "[64, 32]",
        "learning_rate": "0.001",
        "batch_size": "32",
        "activation": "relu",
    }
    tags = {"study": "one", "trial": "7", "pack": "2", "outcome": "completed"}
    assert run.data.tags.items() >= tags.items()
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert "reason" not in run.data.tags
    assert run.data.metrics.keys() == {*METRIC_NAMES, *metrics}
    assert_epochs(module_store, run, 7, 5)
    assert {name: history(module_store, run, name) for name in metrics} == {
        name: [(0, value)] for name, value in metrics.items()
    }
    assert writer.seconds > 0


@pytest.mark.parametrize(
    ("outcome", "reason", "status"),
    [
        (Outcome.COMPLETED, None, "FINISHED"),
        (Outcome.PRUNED, "worse than its pack at epoch 5", "FINISHED"),
        (Outcome.FAILED, "val_loss is nan", "FAILED"),
        (Outcome.INTERRUPTED, "the study was stopped", "KILLED"),
    ],
)
def test_outcomes_are_told_apart(
    outcome: Outcome, reason: str | None, status: str, module_store: Store, parent: str
) -> None:
    writer = RunWriter(made(module_store, parent), {})
    writer.start(0, PARAMS, {})
    end(writer, 0, outcome, reason)
    writer.close()
    (run,) = children(module_store, parent).values()
    assert run.info.status == status
    assert run.data.tags["outcome"] == outcome.value
    assert run.data.tags.get("reason") == reason


def test_a_trial_costs_three_requests(module_store: Store, parent: str) -> None:
    client = Client(module_store.client)
    writer = RunWriter(made(through(module_store, client), parent), {})
    write_study(writer, trials=4, epochs=50)
    writer.close()
    assert sorted(client.names()) == sorted(["create_run", "log_batch", "set_terminated"] * 4)
    assert_study(module_store, parent, trials=4, epochs=50)


@pytest.mark.parametrize("epochs", [200, 201, 450])
def test_batches_are_no_larger_than_mlflow_takes(
    epochs: int, module_store: Store, parent: str
) -> None:
    client = Client(module_store.client)
    writer = RunWriter(made(through(module_store, client), parent), {})
    write_study(writer, trials=2, epochs=epochs)
    writer.close()
    sizes = [len(given[1]) for name, given in client.calls if name == "log_batch"]
    assert max(sizes) <= 1000
    assert sum(sizes) == 2 * (epochs * len(METRIC_NAMES) + 1)
    assert_study(module_store, parent, trials=2, epochs=epochs)


def test_a_long_trial_is_shown_while_it_runs(
    module_store: Store, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_run, "FLUSH_SECONDS", 0.05)
    writer = RunWriter(made(module_store, parent), {})
    writer.start(0, PARAMS, {"pack": "0"})
    writer.record(records(0, 3))
    deadline = time.monotonic() + 20
    while not (runs := children(module_store, parent)) or "val_f1" not in runs[0].data.metrics:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert runs[0].info.status == "RUNNING"
    assert_epochs(module_store, runs[0], 0, 3)
    writer.record(records(0, 4, first=4))
    end(writer, 0, Outcome.COMPLETED, metrics={"seconds": 1.5})
    writer.close()
    assert_study(module_store, parent, trials=1)


def test_many_trials_under_way_are_shown_by_turns(
    module_store: Store, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Showing all at once would keep the thread, and with it the driver, for half a minute."""
    monkeypatch.setattr(child_run, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(writer_module, "SHOWN_AT_A_LOOK", 4)
    looks: list[list[str]] = []
    client = Client(module_store.client, before=lambda name: looks[-1].append(name))
    ready = made(through(module_store, client), parent).result()
    ready.hold = lambda: looks.append([])
    run: Future[Any] = Future()
    writer = RunWriter(run, {})
    for trial in range(30):
        writer.start(trial, PARAMS, {"pack": "0"})
        writer.record(records(trial, 3))
    run.set_result(ready)
    deadline = time.monotonic() + 60
    while len(children(module_store, parent)) < 30:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert max(look.count("create_run") + look.count("log_batch") for look in looks) <= 8
    for trial in range(30):
        end(writer, trial, Outcome.COMPLETED, metrics={"seconds": 1.5})
    writer.close()
    assert_study(module_store, parent, trials=30, epochs=3)


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.PRUNED, Outcome.FAILED])
@pytest.mark.parametrize("epochs", [3, 250])
def test_a_duplicate_gets_everything_of_its_original(
    outcome: Outcome, epochs: int, module_store: Store, parent: str
) -> None:
    writer = RunWriter(made(module_store, parent), {"study": "one"})
    writer.start(0, PARAMS, {"pack": "0"})
    writer.start(1, PARAMS, {"pack": "0", "duplicate_of": "0"})
    writer.record(records(0, epochs))
    end(writer, 0, outcome, "why", {"seconds": 1.5, "best_epoch": 2})
    writer.copy(1, 0)
    writer.start(2, PARAMS, {"pack": "1", "duplicate_of": "0"})
    writer.copy(2, 0)
    writer.close()
    original, *copies = (run for _, run in sorted(children(module_store, parent).items()))
    assert len(copies) == 2
    for number, run in enumerate(copies, 1):
        assert run.info.status == original.info.status
        assert run.info.end_time >= run.info.start_time
        tags = {
            "trial": str(number),
            "duplicate_of": "0",
            "outcome": outcome.value,
            "reason": "why",
        }
        assert run.data.tags.items() >= tags.items()
        assert run.data.params == original.data.params
        assert run.data.metrics == original.data.metrics
        assert_epochs(module_store, run, 0, epochs)
        assert history(module_store, run, "best_epoch") == [(0, 2)]


def test_a_loss_that_is_no_number_is_recorded(module_store: Store, parent: str) -> None:
    writer = RunWriter(made(module_store, parent), {})
    writer.start(0, PARAMS, {})
    writer.start(1, PARAMS, {"duplicate_of": "0"})
    broken = {**records(0, 1)[0], "train_loss": float("nan"), "val_loss": float("inf")}
    writer.record([broken])
    end(writer, 0, Outcome.FAILED, "train_loss is nan")
    writer.copy(1, 0)
    writer.close()
    runs = children(module_store, parent)
    for trial in (0, 1):
        (point,) = module_store.client.get_metric_history(runs[trial].info.run_id, "train_loss")
        assert point.value != point.value
        (point,) = module_store.client.get_metric_history(runs[trial].info.run_id, "val_loss")
        assert point.value > 1e300


def test_a_writer_of_nothing(module_store: Store, parent: str) -> None:
    writer = RunWriter(made(module_store, parent), {})
    writer.close()
    assert children(module_store, parent) == {}
    assert writer.seconds < 1


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The sizes of the parts written as rows; `before` and `after` each of them may fail."""
    noted: dict[str, Any] = {"sizes": [], "before": failing(0), "after": failing(0)}

    def write(client: Any, experiment: str, updates: Any) -> list[str]:
        noted["before"]("write_runs")
        ids = write_runs(client, experiment, updates)
        noted["sizes"].append(len(updates))
        noted["after"]("write_runs")
        return ids

    monkeypatch.setattr(sender_module, "write_runs", write)
    yield noted


class Paused(RunWriter):
    """A writer whose calls wait, so that it finds them all at once."""

    gate: threading.Event

    def __init__(self, *arguments: Any) -> None:
        self.gate = threading.Event()
        super().__init__(*arguments)

    def _work(self) -> None:
        self.gate.wait()
        super()._work()


def write_at_once(store: Store, parent: str, trials: int = 6) -> None:
    writer = Paused(made(store, parent), {})
    write_study(writer, trials)
    writer.gate.set()
    writer.close()


def test_trials_that_end_together_are_recorded_together(
    module_store: Store, parent: str, together: dict[str, Any]
) -> None:
    write_at_once(module_store, parent)
    assert together["sizes"] == [6]
    assert_study(module_store, parent, 6)


def test_transactions_are_of_moderate_length(
    module_store: Store, parent: str, together: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = ["parent", "trial", "pack", "outcome", "result"]
    each = 4 * len(METRIC_NAMES) + 1 + len(PARAMS) + len(tags)
    for most, sizes in ((4 * each, [4, 2]), (4 * each - 1, [3, 3]), (1, [1] * 6)):
        together["sizes"].clear()
        monkeypatch.setattr(sender_module, "MOST_VALUES", most)
        run = module_store.client.create_run(module_store.experiment_id, run_name="study")
        write_at_once(module_store, str(run.info.run_id))
        assert together["sizes"] == sizes
        assert_study(module_store, str(run.info.run_id), 6)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 5])
def test_what_is_not_recorded_together_is_recorded_one_by_one(
    when: str, times: int, module_store: Store, parent: str, together: dict[str, Any]
) -> None:
    """Also when all was recorded and the answer alone was lost: nothing is there twice."""
    together[when] = failing(times)
    write_at_once(module_store, parent)
    assert len(together["sizes"]) <= 1
    assert_study(module_store, parent, 6)


def test_a_value_too_long_for_it_is_recorded_by_mlflow(
    module_store: Store, parent: str, together: dict[str, Any]
) -> None:
    writer = Paused(made(module_store, parent), {})
    writer.start(0, PARAMS | {"activation": "x" * 5500}, {})
    end(writer, 0, Outcome.COMPLETED)
    writer.gate.set()
    writer.close()
    assert children(module_store, parent)[0].data.params["activation"] == "x" * 5500
    assert together["sizes"] == []


def test_a_slow_store_does_not_hold_up_the_caller(module_store: Store, parent: str) -> None:
    """A server that takes its time is sent several trials at once, never one trial twice."""
    under_way, most, lock = [0], [0], threading.Lock()

    def before(name: str) -> None:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.5)

    def after(name: str) -> None:
        with lock:
            under_way[0] -= 1

    client = Client(module_store.client, before, after)
    writer = RunWriter(made(through(module_store, client), parent), {})
    started = time.monotonic()
    for trial in range(12):
        writer.start(trial, PARAMS, {"pack": "0"})
        for epoch in range(1, 5):
            writer.record(records(trial, epoch, first=epoch))
        end(writer, trial, Outcome.COMPLETED, metrics={"seconds": 1.5})
    assert time.monotonic() - started < 0.75  # half of what one trial takes, at the least
    writer.close()
    assert time.monotonic() - started > 3 * 0.5
    assert 1 < most[0] <= SENDERS
    assert_study(module_store, parent, 12)


@pytest.mark.parametrize("name", ["create_run", "log_batch", "set_terminated", "any"])
@pytest.mark.parametrize("times", [1, 5])
def test_a_store_that_comes_back_has_lost_nothing(
    name: str, times: int, module_store: Store, parent: str
) -> None:
    interfere = failing(times) if name == "any" else failing(times, name)
    client = Client(module_store.client, before=interfere)
    writer = RunWriter(made(through(module_store, client), parent), {})
    write_study(writer)
    writer.close()
    assert_study(module_store, parent)
    assert len(client.calls) >= 3 * 3 + times


@pytest.mark.parametrize("name", ["get_run", "get_metric_history"])
def test_a_copy_of_what_is_on_record_waits_for_the_store_too(
    name: str, module_store: Store, parent: str
) -> None:
    first = RunWriter(made(module_store, parent), {})
    first.start(0, PARAMS, {})
    first.record(records(0, 3))
    end(first, 0, Outcome.COMPLETED, metrics={"seconds": 1.5})
    first.close()
    client = Client(module_store.client, before=failing(3, name))
    trials = read_trials(module_store, parent)
    writer = RunWriter(made(through(module_store, client), parent), {}, trials=trials)
    writer.start(1, PARAMS, {"duplicate_of": "0"})
    writer.copy(1, 0)
    writer.close()
    assert client.names().count(name) > 3
    runs = children(module_store, parent)
    assert runs[1].info.status == "FINISHED"
    assert_epochs(module_store, runs[1], 0, 3)


@pytest.mark.parametrize("by_client", [False, True])
def test_what_was_just_told_is_not_read_back(
    by_client: bool, module_store: Store, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(module_store.client)
    if not by_client:
        monkeypatch.setattr(
            Client, "_tracking_client", property(lambda self: self._client._tracking_client)
        )
    writer = Paused(made(through(module_store, client), parent), {})
    for trial in range(6):
        original = {"duplicate_of": str(trial - 1)} if trial % 2 else {}
        writer.start(trial, PARAMS, {"pack": "0", **original})
    for trial in (0, 2, 4):
        writer.record(records(trial, 250))
        end(writer, trial, Outcome.COMPLETED, metrics={"seconds": 1.5})
        writer.copy(trial + 1, trial)
    writer.gate.set()
    writer.close()
    asked = {"create_run", "log_batch", "set_terminated"} if by_client else {"get_experiment"}
    assert set(client.names()) == asked
    runs = children(module_store, parent)
    for trial, run in runs.items():
        assert run.info.status == "FINISHED"
        assert_epochs(module_store, run, trial - trial % 2, 250)


@pytest.mark.parametrize("name", ["log_batch", "set_terminated"])
def test_an_answer_that_is_lost_does_not_double_the_record(
    name: str, module_store: Store, parent: str
) -> None:
    """The store has done what it was asked, and the line breaks before it says so."""
    client = Client(module_store.client, after=failing(2, name))
    writer = RunWriter(made(through(module_store, client), parent), {})
    write_study(writer, epochs=450)
    writer.close()
    assert_study(module_store, parent, epochs=450)


def test_a_lost_answer_to_create_run_leaves_no_second_run(module_store: Store, parent: str) -> None:
    client = Client(module_store.client, after=failing(1, "create_run"))
    writer = RunWriter(made(through(module_store, client), parent), {})
    write_study(writer)
    writer.close()
    assert_study(module_store, parent)


def test_the_store_is_left_alone_between_two_tries(
    module_store: Store, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.2)
    client = Client(module_store.client, before=failing(2, "create_run"))
    writer = RunWriter(made(through(module_store, client), parent), {})
    started = time.monotonic()
    for trial in range(50):
        writer.start(trial, PARAMS, {})
        writer.record(records(trial, 1))
    for trial in range(50):
        end(writer, trial, Outcome.COMPLETED)
    writer.close()
    assert time.monotonic() - started >= 0.4
    assert client.names().count("create_run") == 52


@pytest.mark.parametrize(
    ("interfere", "left"),
    [
        (failing(float("inf")), 3),
        (failing(float("inf"), "create_run"), 3),
        (failing(float("inf"), "set_terminated"), 3),
    ],
    ids=["everything", "create_run", "set_terminated"],
)
def test_a_store_that_is_dead_is_said_so_at_the_end(
    interfere: Callable[[str], None],
    left: int,
    module_store: Store,
    parent: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer_module, "PATIENCE_SECONDS", 0.3)
    client = Client(module_store.client, before=interfere)
    writer = RunWriter(made(through(module_store, client), parent), {})
    write_study(writer)
    started = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        writer.close()
    assert 0.3 <= time.monotonic() - started < 5
    assert str(caught.value) == (
        f"the MLflow store must accept the record, got from {module_store.uri}: "
        f"the store is away; {left} trials are not fully recorded"
    )
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_the_error_shows_no_password(
    module_store: Store, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "PATIENCE_SECONDS", 0.0)
    client = Client(module_store.client, before=failing(float("inf")))
    guarded = replace(module_store, uri="postgresql://me:secret@db/mlflow")
    writer = RunWriter(made(through(guarded, client), parent), {})
    write_study(writer, trials=1)
    with pytest.raises(TrackingError) as caught:
        writer.close()
    assert "secret" not in str(caught.value)
    assert "1 trial is not fully recorded" in str(caught.value)


def test_one_run_that_is_refused_does_not_hold_up_the_others(
    module_store: Store, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody deletes a run of the study under way."""
    monkeypatch.setattr(child_run, "FLUSH_SECONDS", 0.02)
    monkeypatch.setattr(writer_module, "PATIENCE_SECONDS", 0.3)
    writer = RunWriter(made(module_store, parent), {})
    writer.start(0, PARAMS, {"pack": "0"})
    writer.record(records(0, 1))
    deadline = time.monotonic() + 20
    while not (runs := children(module_store, parent)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    module_store.client.delete_run(runs[0].info.run_id)
    writer.record(records(0, 2, first=2))
    for trial in (1, 2):
        writer.start(trial, PARAMS, {"pack": "1"})
        writer.record(records(trial, 4))
        end(writer, trial, Outcome.COMPLETED, metrics={"seconds": 1.5})
    writer.start(3, PARAMS, {"duplicate_of": "1"})
    writer.copy(3, 1)
    end(writer, 0, Outcome.COMPLETED)
    with pytest.raises(TrackingError, match="1 trial"):
        writer.close()
    runs = children(module_store, parent)
    assert {n: runs[n].info.status for n in runs} == dict.fromkeys((1, 2, 3), "FINISHED")
    for trial, original in ((1, 1), (2, 2), (3, 1)):
        assert_epochs(module_store, runs[trial], original, 4)


def test_a_driver_that_has_lost_its_study_writes_nothing_more(
    module_store: Store, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_run, "FLUSH_SECONDS", 0.02)
    run = made(module_store, parent)
    writer = RunWriter(run, {})
    writer.start(0, PARAMS, {})
    writer.record(records(0, 2))
    deadline = time.monotonic() + 20
    while not children(module_store, parent):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    def lost() -> None:
        raise RecordError("another driver has taken it over")

    run.result().hold = lost
    started = time.monotonic()
    writer.record(records(0, 4, first=3))
    writer.start(1, PARAMS, {})
    for trial in (0, 1):
        end(writer, trial, Outcome.INTERRUPTED)
    with pytest.raises(TrackingError, match="another driver has taken it over; 2 trials"):
        writer.close()
    assert time.monotonic() - started < writer_module.PATIENCE_SECONDS
    assert [(n, child.info.status) for n, child in children(module_store, parent).items()] == [
        (0, "RUNNING")
    ]
    assert_epochs(module_store, children(module_store, parent)[0], 0, 2)


def test_a_file_store_takes_no_step_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of it was lost; other stores know a step that they have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = open_store(f"file://{tmp_path}/files")
    study = str(store.client.create_run(store.experiment_id).info.run_id)
    client = Client(store.client, after=failing(2, "log_batch"))
    writer = RunWriter(made(through(store, client), study), {})
    write_study(writer)
    writer.close()
    assert_study(store, study)


def test_a_fault_of_the_caller_is_not_swallowed(module_store: Store, parent: str) -> None:
    """Whatever ends the thread, `close` does not say that all is written."""
    writer = RunWriter(made(module_store, parent), {})
    writer.start(0, PARAMS, {"pack": "0"})
    writer.record(records(5, 1))  # a trial that was never started
    end(writer, 0, Outcome.COMPLETED)
    with pytest.raises(KeyError, match="5"):
        writer.close()
    assert children(module_store, parent)[0].info.status == "FINISHED"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "name",
    ["get_run", "get_metric_history", "delete_tag", "update_run", "log_batch", "set_terminated"],
)
def test_a_run_that_is_opened_again_says_what_is_true_now(
    name: str, when: str, module_store: Store, parent: str
) -> None:
    """Whatever is refused meanwhile, or answered without our hearing it."""
    first = RunWriter(made(module_store, parent), {})
    for trial in (0, 1):
        first.start(trial, PARAMS, {"pack": "0"})
        first.record(records(trial, 2))
        so_far = {"trial": trial, "outcome": "interrupted", "reason": "the budget", "score": 0.5}
        first.end(trial, so_far, {})
    first.close()
    trials = read_trials(module_store, parent)
    assert not any(trial.ended for trial in trials.values())
    client = Client(module_store.client, **{when: failing(2, name)})
    writer = RunWriter(made(through(module_store, client), parent), {}, trials=trials)
    for trial in (0, 1):
        writer.start(trial, PARAMS, {"pack": "0"})
    if name == "update_run":  # asked of what is shown before it ends
        deadline = time.monotonic() + 20
        writer.record(records(0, 250))
        while len(history(module_store, children(module_store, parent)[0], "val_f1")) < 250:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert children(module_store, parent)[0].info.status == "RUNNING"
        assert "reason" not in children(module_store, parent)[0].data.tags
    for trial in (0, 1):
        writer.record(records(trial, 4))
        if name != "update_run" or trial == 1:
            end(writer, trial, Outcome.COMPLETED, metrics={"seconds": 1.5})
    if name == "update_run":
        end(writer, 0, Outcome.INTERRUPTED, "the budget")
    writer.close()
    assert name in client.names()
    runs = children(module_store, parent)
    assert "reason" not in runs[1].data.tags
    assert "result_so_far" not in runs[1].data.tags
    assert (runs[1].info.status, runs[1].data.tags["outcome"]) == ("FINISHED", "completed")
    assert_epochs(module_store, runs[1], 1, 4)
    if name == "update_run":
        assert runs[0].info.status == "KILLED"
        assert runs[0].data.tags["reason"] == "the budget"
        assert_epochs(module_store, runs[0], 0, 250)
    else:
        assert_study(module_store, parent, 2)
