"""The lease: one driver a study, one promoter a model; from a dead one it can be taken."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops.errors import InputError, RecordError
from mlops.tracking.store import lease
from mlops.tracking.store.lease import DriverTag, Lease, PromoterTag
from mlops.tracking.store.store import Store, open_store

HOLD = """
import sys, time
from mlops.tracking.store import lease
from mlops.tracking.store.store import open_store
lease.Lease(getattr(lease, sys.argv[2])(open_store(sys.argv[1]), *sys.argv[3:])).take()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.1)
    monkeypatch.setattr(lease, "SILENCE_SECONDS", 2.0)
    return open_store(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture(params=[DriverTag, PromoterTag])
def tag(request: pytest.FixtureRequest, store: Store) -> Any:
    """A study's, and a model's: the same holds for both."""
    if request.param is DriverTag:
        return DriverTag(store, store.client.create_run(store.experiment_id).info.run_id, "one")
    store.client.create_registered_model("mlp")
    return PromoterTag(store, "mlp")


@pytest.fixture
def holder(store: Store, tag: Any) -> Iterator[subprocess.Popen[str]]:
    """Another process that has it."""
    given = [tag._run_id, "one"] if isinstance(tag, DriverTag) else ["mlp"]
    words = [sys.executable, "-c", HOLD, store.uri, type(tag).__name__, *given]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def read(tag: Any) -> Any:
    return json.loads(tag.read() or "null")


def test_a_study_is_taken_and_let_go(tag: Any) -> None:
    held = Lease(tag).take()
    held.check()
    assert read(tag)["pid"]
    held.release()
    assert read(tag) is None
    Lease(tag).take().release()


def test_a_second_driver_is_refused_until_the_first_is_gone(
    tag: Any, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(InputError, match=f"got one already, process {holder.pid} on"):
        Lease(tag).take()
    holder.kill()
    holder.wait()
    Lease(tag).take().release()


def elsewhere(tag: Any) -> None:
    """Makes the holder one of another machine, where this one cannot look."""
    tag.write(json.dumps({**read(tag), "machine": "another", "host": "far"}))


def test_a_driver_on_another_machine_is_heard_out(
    tag: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    living = Lease(tag)
    living._mine |= {"machine": "another", "host": "far"}
    living.take()
    with pytest.raises(InputError, match=r"on far; (stop it first|wait for it)"):
        Lease(tag).take()
    living._ending.set()
    living._thread.join()
    Lease(tag).take().release()
    assert "waiting 2 s" in capsys.readouterr().err


def test_who_has_lost_the_study_is_told(tag: Any) -> None:
    held = Lease(tag).take()
    taken = {**read(tag), "machine": "another", "host": "far", "id": "other"}
    tag.write(json.dumps(taken))
    held._thread.join(10)
    with pytest.raises(RecordError, match="got another one on far"):
        held.check()
    held.release()
    assert read(tag) == taken


def test_a_store_that_is_away_for_a_while_loses_no_study(tag: Any, tmp_path: Path) -> None:
    held = Lease(tag).take()
    database = tmp_path / "mlflow.db"
    kept = database.read_bytes()
    database.write_bytes(b"no database " * 1000)
    held._thread.join(0.5)
    database.write_bytes(kept)
    held._thread.join(0.5)
    assert held._thread.is_alive()
    held.check()
    held.release()
    assert read(tag) is None


def test_a_driver_that_stood_still_finds_that_another_has_come_and_gone(
    tag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Lease(tag).take()
    held.hold()
    held._ending.set()  # it renews no more
    held._thread.join()
    tag.remove()
    held.hold()  # a moment ago it was sure
    monkeypatch.setattr(lease, "SURE_SECONDS", 0.0)
    with pytest.raises(RecordError, match="got another one on another machine"):
        held.hold()


def test_who_lets_a_study_go_does_not_let_another_one_s_go(tag: Any) -> None:
    held = Lease(tag).take()
    held._ending.set()
    held._thread.join()
    elsewhere(tag)
    taken = {**read(tag), "id": "other"}
    tag.write(json.dumps(taken))
    held.release()
    assert read(tag) == taken


def test_of_two_that_take_a_study_at_once_one_has_it_however_slow_it_is_to_write(
    tag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, slow = Lease(tag), Lease(tag)
    for each, name in ((fast, "fast"), (slow, "slow")):
        each._mine |= {"machine": name, "host": name}
    write = slow._write
    monkeypatch.setattr(slow, "_write", lambda: (fast.take(), time.sleep(0.4), write()))
    try:
        slow.take()  # it has read that nobody has it
    except InputError:  # its tag was written over by a renewal that was under way
        fast.check()
        fast.release()
        return
    fast._thread.join(10)
    with pytest.raises(RecordError, match="on slow"):
        fast.check()
    slow.check()
    slow.release()


def test_who_waits_has_it_once_it_is_let_go(tag: Any) -> None:
    first = Lease(tag).take()
    letting_go = threading.Timer(1.0, first.release)
    letting_go.start()
    Lease(tag).wait(30).release()
    letting_go.join()
    second = Lease(tag).take()
    with pytest.raises(InputError, match="got one already"):
        Lease(tag).wait(0.1)
    second.release()


def test_what_a_process_could_not_let_go_is_not_in_its_own_way(
    tag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was away for a moment, and the process tries once more."""
    first = Lease(tag).take()
    monkeypatch.setattr(tag, "remove", lambda: 1 / 0)
    first.release()
    assert read(tag) is not None
    monkeypatch.undo()
    Lease(tag).take().release()
    assert read(tag) is None
