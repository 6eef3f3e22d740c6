"""Packs whose worker dies: they go on from their checkpoint, and tell all of it again."""

from __future__ import annotations

import itertools
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from servers import object_store

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.files import exists
from mlops.nn.device.passes import Passes
from mlops.nn.tasks.classification import Classification
from mlops.tuning.training import checkpoint
from mlops.tuning.training.options import PackOptions, SharedRows
from mlops.tuning.training.trial import PackTrial

Report = dict[str, Any]

# The first group to train ends first, and its trials are the pack's best for a while.
MEMBERS = {
    3: Hyperparameters((6,), epochs=6, dropout=0.2, learning_rate=0.003),
    4: Hyperparameters((9,), epochs=3, learning_rate=0.01, activation="tanh"),
    5: Hyperparameters((7, 5), batch_size=16, epochs=5, dropout=0.3),
    6: Hyperparameters((7, 5), batch_size=16, epochs=6, learning_rate=1e30),
    7: Hyperparameters((5, 5), batch_size=16, epochs=6, learning_rate=0.03),
}
# A step ends after one epoch of one group.
OPTIONS = PackOptions(8, "val_accuracy", None, min_epochs=2, threads=1, report_every=0.0)
HALVING = replace(OPTIONS, eta=2, metric="val_loss")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "study" / "checkpoints"


def rows() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 120)
    x = (rng.normal(size=(120, 4)) + y[:, None]).astype(np.float32)
    return x[:75], y[:75], x[75:], y[75:]


def config(pack: int = 2, members: dict[int, Hyperparameters] = MEMBERS) -> dict[str, Any]:
    trials = [
        {"number": number, "params": member.to_dict(), "duplicate_of": None}
        for number, member in members.items()
    ]
    return {"pack": pack, "trials": trials, "settled": []}


def worker(
    folder: Path | str,
    options: PackOptions = OPTIONS,
    *,
    given: tuple[np.ndarray, ...] | None = None,
    n_classes: int = 3,
    pack: dict[str, Any] | None = None,
    every: float | None = 0.0,
    kind: type[PackTrial] = PackTrial,
) -> PackTrial:
    """Makes a worker that writes a checkpoint whenever it can."""
    made = kind.__new__(kind)
    shared: Any = given or rows()
    options = replace(options, checkpoint_every=every, checkpoints=str(folder))
    made.setup(pack or config(), SharedRows(shared, Classification(range(n_classes))), options)
    return made


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[..., PackTrial]:
    """Returns `worker`, without Ray, for the test's own folder."""
    monkeypatch.setattr("mlops.tuning.training.trial.ray.get", lambda given: given)
    return partial(worker, folder)


def to_the_end(worker: PackTrial) -> list[Report]:
    reports = [worker.step()]
    while not reports[-1]["done"]:
        reports.append(worker.step())
    return reports


def leave(worker: PackTrial) -> Report:
    """Lets a worker release its trials, as `release` does where there is Ray."""
    worker._stopped = "the time_budget was spent"
    return worker.step()


def told(reports: list[Report]) -> dict[str, Any]:
    """Returns what reports say in the end, times left out, equal only if every bit is."""
    results = [result for report in reports for result in report["results"]]
    best = [report["best"] for report in reports if "best" in report][-1]
    return {
        "records": [repr(record) for report in reports for record in report["records"]],
        "results": [{**result, "seconds": 0.0} for result in results],
        "scores": reports[-1]["scores"],
        "best": best,
    }


def uninterrupted(start: Callable[..., PackTrial], options: PackOptions = OPTIONS) -> Any:
    return told(to_the_end(start(options, every=None)))


def leave_checkpoint(start: Callable[..., PackTrial], **options: Any) -> int:
    """Lets a worker die half-way; returns how many records its checkpoint has."""
    killed = start(**options)
    reports = [killed.step() for _ in range(9)]
    assert not reports[-1]["done"]
    # A step first writes what the ones before it have reported.
    return sum(len(report["records"]) for report in reports[:-1])


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    own = [r for r in caplog.records if r.name == checkpoint.__name__]
    return [record.getMessage() for record in own if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("options", [OPTIONS, HALVING], ids=["all epochs", "halving"])
def test_a_pack_killed_anywhere_ends_as_if_it_had_not_been(
    start: Callable[..., PackTrial], folder: Path, options: PackOptions
) -> None:
    expected = uninterrupted(start, options)
    assert sorted(result["trial"] for result in expected["results"]) == sorted(MEMBERS)
    steps = len(to_the_end(start(options)))
    for killed_after in range(1, steps):
        killed = start(options)
        before = [killed.step() for _ in range(killed_after)]
        reports = to_the_end(start(options))
        assert told(reports) == expected
        # The first report has all that was told up to the checkpoint, times included.
        for name in ("records", "results"):
            again = list(itertools.chain(*(report[name] for report in before[:-1])))
            assert repr(reports[0][name]) == repr(again)
        best = [report["best"] for report in before[:-1] if "best" in report]
        assert reports[0].get("best") == (best[-1] if best else None)
        assert list(folder.iterdir()) == []


def test_a_pack_goes_on_from_an_object_store(
    start: Callable[..., PackTrial], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = uninterrupted(start)
    with object_store(monkeypatch) as bucket:
        there = partial(worker, f"{bucket}/study")
        n_records = leave_checkpoint(there)
        reports = to_the_end(there())
        assert len(reports[0]["records"]) == n_records
        assert told(reports) == expected
        assert not exists(f"{bucket}/study/pack-2.safetensors")


def test_only_what_is_not_in_the_checkpoint_is_trained(
    start: Callable[..., PackTrial], monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []
    pieces = Passes.pieces

    def counted(self: Passes, optimizer: Any, seed: int, epoch: int) -> Any:
        epochs.append(epoch)
        return pieces(self, optimizer, seed, epoch)

    monkeypatch.setattr(Passes, "pieces", counted)
    uninterrupted(start)
    once = len(epochs)
    assert once > 1
    epochs.clear()
    leave_checkpoint(start)
    to_the_end(start())
    # The last epoch before the worker died was in no checkpoint yet.
    assert len(epochs) == once + 1


def test_packs_of_a_worker_have_a_file_each(start: Callable[..., PackTrial], folder: Path) -> None:
    other = config(3, {number + 10: member for number, member in MEMBERS.items()})
    expected = told(to_the_end(start(every=None, pack=other)))
    one = start()
    for _ in range(4):
        one.step()
    one.reset_config(other)
    for _ in range(4):
        one.step()
    names = ["pack-2.safetensors", "pack-3.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert told(to_the_end(start(pack=other))) == expected
    assert [path.name for path in folder.iterdir()] == names[:1]


def test_a_pack_of_duplicates_needs_none(start: Callable[..., PackTrial], folder: Path) -> None:
    pack = config()
    for member in pack["trials"]:
        member["duplicate_of"] = 0
    assert start(pack=pack).step() == {"records": [], "results": [], "done": True, "scores": []}
    assert not folder.exists()


def test_a_checkpoint_is_written_when_the_last_is_old(
    start: Callable[..., PackTrial], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: now))
    pack = start(every=10.0)
    pack.step()
    pack.step()
    for _ in range(3):
        for seconds, written in ((9.5, False), (0.5, True)):
            now += seconds
            pack.step()
            assert len(list(folder.glob("*"))) == written
        next(folder.iterdir()).unlink()


def test_none_is_written_unless_asked_for(start: Callable[..., PackTrial], folder: Path) -> None:
    to_the_end(start(every=None))
    assert not folder.exists()


@pytest.mark.parametrize("options", [OPTIONS, HALVING], ids=["all epochs", "halving"])
def test_a_pack_left_anywhere_goes_on_as_if_it_had_not_been(
    start: Callable[..., PackTrial], folder: Path, options: PackOptions
) -> None:
    expected = uninterrupted(start, options)
    steps = len(to_the_end(start(options, every=None)))
    outcomes_of_best = set()
    for left_after in range(2, steps):  # after the first nothing has been trained
        progress = 0
        # Twice, the second time at once.
        for further in (left_after, 1):
            left = start(options, every=None)
            reports = [left.step() for _ in range(further)]
            while not reports[-1]["done"]:
                reports.append(leave(left))
            told_of = [result for report in reports for result in report["results"]]
            assert sorted(result["trial"] for result in told_of) == sorted(MEMBERS)
            ended = [r["trial"] for r in told_of if r["outcome"] != "interrupted"]
            assert [trial for trial, _ in reports[-1]["scores"]] == ended
            assert len(list(folder.iterdir())) == (len(ended) < len(MEMBERS))
            # Each time it gets on by an epoch, or by a rung.
            n_records = sum(len(report["records"]) for report in reports)
            assert n_records > progress or options is HALVING
            progress = n_records
            scored = [result for result in told_of if result["score"] is not None]
            best = min(scored, key=lambda result: merit_of(result, options.metric))
            assert [r["best"]["trial"] for r in reports if "best" in r][-1] == best["trial"]
            outcomes_of_best.add(best["outcome"])
            if len(ended) == len(MEMBERS):
                break
        else:
            assert told(to_the_end(start(options, every=None))) == expected
        assert list(folder.iterdir()) == []
    assert outcomes_of_best == {"interrupted", "completed"}


def merit_of(result: dict[str, Any], metric: str) -> tuple[float, ...]:
    score = result["score"] if metric == "val_loss" else -result["score"]
    return (score, result["metrics"]["val_loss"], -result["best_epoch"], result["trial"])


def test_a_pack_that_has_not_begun_leaves_its_checkpoint(
    start: Callable[..., PackTrial], folder: Path
) -> None:
    leave_checkpoint(start)
    (file,) = folder.iterdir()
    before = file.read_bytes()
    last = leave(start(every=None))
    assert (last["records"], last["results"], last["done"]) == ([], [], True)
    assert file.read_bytes() == before


def test_none_is_read_without_a_folder(start: Callable[..., PackTrial], folder: Path) -> None:
    leave_checkpoint(start)
    (file,) = folder.iterdir()
    before = file.read_bytes()
    pack = start()
    pack.setup(
        config(),
        SharedRows(rows(), Classification(range(3))),
        replace(pack._options, checkpoints=None),
    )
    assert len(pack.step()["records"]) == len([m for m in MEMBERS.values() if m.batch_size == 32])
    to_the_end(pack)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"not a checkpoint",
        lambda data: save({"records": torch.zeros(0, 7)}, {"facts": "{}"}),
    ],
)
def test_a_damaged_one_is_not_used(
    start: Callable[..., PackTrial],
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    expected = uninterrupted(start)
    leave_checkpoint(start)
    (file,) = folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert told(to_the_end(start())) == expected
    assert len(complaints(caplog)) == 1
    assert f"pack 2 starts from the beginning, for {file} is of no use" in complaints(caplog)[0]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_user_s_file_of_that_name_is_left_as_it_is(
    start: Callable[..., PackTrial],
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    metadata: dict[str, str] | None,
) -> None:
    expected = uninterrupted(start)
    folder.mkdir(parents=True)
    file, content = folder / "pack-2.safetensors", save({"theirs": torch.ones(3)}, metadata)
    file.write_bytes(content)
    one = start()
    assert told(to_the_end(one)) == expected
    assert file.read_bytes() == content
    (complaint,) = complaints(caplog)
    assert complaint.startswith(f"training goes on without checkpoints: {file} must be")
    # The next pack's is its own.
    other = config(3, {number + 10: member for number, member in MEMBERS.items()})
    one.reset_config(other)
    for _ in range(4):
        one.step()
    assert sorted(path.name for path in folder.iterdir()) == [
        "pack-2.safetensors",
        "pack-3.safetensors",
    ]


def test_no_flipped_bit_goes_unnoticed(
    start: Callable[..., PackTrial], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    n_records = leave_checkpoint(start)
    (file,) = folder.iterdir()
    data = file.read_bytes()
    assert len(start().step()["records"]) == n_records > 0
    for flipped, position in enumerate(range(0, len(data), 41), start=1):
        broken = bytearray(data)
        broken[position] ^= 1 << position % 8
        file.write_bytes(broken)
        assert start().step()["records"] == []
        assert len(complaints(caplog)) == flipped


class OnAnotherDevice(PackTrial):
    def _choose_device(self, gpus: float) -> str:
        return "cpu:0"


def with_another_cell() -> tuple[np.ndarray, ...]:
    x_train, *others = rows()
    x_train[7, 2] += 1e-6
    return x_train, *others


@pytest.mark.parametrize(
    ("differing", "other"),
    [
        ("seed", {"options": replace(OPTIONS, seed=9)}),
        ("metric", {"options": replace(OPTIONS, metric="val_loss")}),
        ("eta", {"options": replace(OPTIONS, eta=2)}),
        ("min_epochs", {"options": replace(OPTIONS, min_epochs=3)}),
        ("device", {"kind": OnAnotherDevice}),
        ("rows", {"given": with_another_cell()}),
        ("rows", {"given": tuple(part[:30] for part in rows())}),
        ("n_classes", {"n_classes": 4}),
        ("trials", {"pack": config(2, {**MEMBERS, 3: replace(MEMBERS[3], learning_rate=0.002)})}),
        ("trials", {"pack": config(2, {n + 1: member for n, member in MEMBERS.items()})}),
        ("trials", {"pack": config(2, {n: MEMBERS[n] for n in list(MEMBERS)[:-1]})}),
    ],
)
def test_another_packs_is_not_used(
    start: Callable[..., PackTrial],
    caplog: pytest.LogCaptureFixture,
    differing: str,
    other: dict[str, Any],
) -> None:
    expected = told(to_the_end(start(every=None, **other)))
    leave_checkpoint(start)
    assert told(to_the_end(start(**other))) == expected
    (complaint,) = complaints(caplog)
    assert complaint.endswith(f"it was written with different {differing}")


@pytest.mark.parametrize(
    ("differing", "name", "value"),
    [
        ("torch", "torch.__version__", "2.12.0"),
        ("format", "mlops.tuning.training.checkpoint.FORMAT", 0),
    ],
)
def test_another_versions_is_not_used(
    start: Callable[..., PackTrial],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    differing: str,
    name: str,
    value: Any,
) -> None:
    leave_checkpoint(start)
    monkeypatch.setattr(name, value)
    assert start().step()["records"] == []
    (complaint,) = complaints(caplog)
    assert complaint.endswith(f"it was written with different {differing}")


def test_rows_are_the_same_in_either_order_of_memory(start: Callable[..., PackTrial]) -> None:
    by_column = tuple(np.asfortranarray(part) for part in rows())
    n_records = leave_checkpoint(start, given=by_column)
    assert len(start(given=by_column).step()["records"]) == n_records


def test_a_folder_that_cannot_be_written_is_done_without(
    start: Callable[..., PackTrial], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = uninterrupted(start)
    folder.parent.write_text("a file in the folder's way")
    one = start()
    assert told(to_the_end(one)) == expected
    one.reset_config(config(3))
    assert told(to_the_end(one)) == expected
    (complaint,) = complaints(caplog)
    assert complaint.startswith("training goes on without checkpoints: ")
    assert str(folder) in complaint


def test_a_folder_in_the_files_place_is_done_without(
    start: Callable[..., PackTrial], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = uninterrupted(start)
    (folder / "pack-2.safetensors" / "something").mkdir(parents=True)
    assert told(to_the_end(start())) == expected
    (complaint,) = complaints(caplog)
    assert complaint.startswith("training goes on without checkpoints: ")


def test_a_full_disk_leaves_the_last_one_in_place(
    start: Callable[..., PackTrial], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = uninterrupted(start)
    one = start()
    before = [one.step() for _ in range(5)]

    # What a full disk does to a write, a limit on a file's size does too.
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, no_limit[1]))
    try:
        one.step()
        one.step()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
    (complaint,) = complaints(caplog)
    assert "File too large" in complaint
    assert len(list(folder.iterdir())) == 1
    first = start().step()
    assert len(first["records"]) == sum(len(report["records"]) for report in before[:-1])
    # Room again.
    one.step()
    assert len(start().step()["records"]) > len(first["records"])
    assert told(to_the_end(start())) == expected


def test_a_checkpoint_is_on_the_disk_before_it_takes_the_last_ones_place(
    start: Callable[..., PackTrial], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[bool] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        size = os.fstat(descriptor).st_size
        (unfinished,) = folder.glob("*/pack-2.safetensors")
        whole.append(unfinished.stat().st_size == size > 0)

    monkeypatch.setattr(checkpoint.os, "fsync", watched)
    leave_checkpoint(start)
    assert whole == [True] * 7


# What a process does that is to be killed: 1 s from report to report, as in a study.
PROCESS = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[3]]
from mlops.tuning.training import options, trial
import test_checkpoint as tests
trial.ray.get = lambda given: given
options = tests.replace(tests.OPTIONS, report_every=options.REPORT_SECONDS)
tests.to_the_end(tests.worker(sys.argv[2], options, pack=tests.LONG))
"""
LONG = config(2, {number: replace(member, epochs=150) for number, member in MEMBERS.items()})


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_one_that_can_be_used(
    start: Callable[..., PackTrial], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = told(to_the_end(start(every=None, pack=LONG)))
    n_records = 0
    for seconds in (0.0, 0.11):
        command = [sys.executable, "-c", PROCESS, str(Path(__file__).parent), str(folder)]
        command.append(str(Path(__file__).parents[2]))
        with subprocess.Popen(command) as process:
            await_records(start, folder, n_records + 40)
            time.sleep(seconds)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        n_records = len(start(pack=LONG).step()["records"])
    assert 80 <= n_records < len(expected["records"])
    assert told(to_the_end(start(pack=LONG))) == expected
    assert complaints(caplog) == []


def await_records(start: Callable[..., PackTrial], folder: Path, n_records: int) -> None:
    """Waits until a checkpoint has that many."""
    give_up = time.monotonic() + 60
    while len(start(pack=LONG).step()["records"]) < n_records:
        assert time.monotonic() < give_up
        time.sleep(0.05)
