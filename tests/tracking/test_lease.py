"""The lease: one driver a study, and a dead one's study can be taken."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops.errors import InputError, RecordError
from mlops.tracking import lease
from mlops.tracking.lease import TAG, Lease
from mlops.tracking.store import Store, open_store

HOLD = """
import sys, time
from mlops.tracking.lease import Lease
from mlops.tracking.store import open_store
Lease(open_store(sys.argv[1]), sys.argv[2]).take("one")
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.1)
    monkeypatch.setattr(lease, "SILENCE_SECONDS", 2.0)
    return open_store(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def run_id(store: Store) -> str:
    return str(store.client.create_run(store.experiment_id).info.run_id)


@pytest.fixture
def holder(store: Store, run_id: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the study."""
    words = [sys.executable, "-c", HOLD, store.uri, run_id]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def tag(store: Store, run_id: str) -> Any:
    tags = store.client.get_run(run_id).data.tags
    return json.loads(tags[TAG]) if TAG in tags else None


def test_a_study_is_taken_and_let_go(store: Store, run_id: str) -> None:
    held = Lease(store, run_id).take("one")
    held.check()
    assert tag(store, run_id)["pid"]
    held.release()
    assert tag(store, run_id) is None
    Lease(store, run_id).take("one").release()


def test_a_second_driver_is_refused_until_the_first_is_gone(
    store: Store, run_id: str, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(InputError, match=f"got one already, process {holder.pid} on"):
        Lease(store, run_id).take("one")
    holder.kill()
    holder.wait()
    Lease(store, run_id).take("one").release()


def elsewhere(store: Store, run_id: str) -> None:
    """Makes the holder one of another machine, where this one cannot look."""
    store.client.set_tag(
        run_id, TAG, json.dumps({**tag(store, run_id), "machine": "another", "host": "far"})
    )


def test_a_driver_on_another_machine_is_heard_out(
    store: Store, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    living = Lease(store, run_id)
    living._mine |= {"machine": "another", "host": "far"}
    living.take("one")
    with pytest.raises(InputError, match="on far; stop it first"):
        Lease(store, run_id).take("one")
    living._ending.set()
    living._thread.join()
    Lease(store, run_id).take("one").release()
    assert "waiting 2 s" in capsys.readouterr().err


def test_who_has_lost_the_study_is_told(store: Store, run_id: str) -> None:
    held = Lease(store, run_id).take("one")
    elsewhere(store, run_id)
    taken = {**tag(store, run_id), "id": "other"}
    store.client.set_tag(run_id, TAG, json.dumps(taken))
    held._thread.join(10)
    with pytest.raises(RecordError, match="got another one on far"):
        held.check()
    held.release()
    assert tag(store, run_id) == taken


def test_a_store_that_is_away_for_a_while_loses_no_study(
    store: Store, run_id: str, tmp_path: Path
) -> None:
    held = Lease(store, run_id).take("one")
    database = tmp_path / "mlflow.db"
    kept = database.read_bytes()
    database.write_bytes(b"no database " * 1000)
    held._thread.join(0.5)
    database.write_bytes(kept)
    held._thread.join(0.5)
    assert held._thread.is_alive()
    held.check()
    held.release()
    assert tag(store, run_id) is None


def test_a_driver_that_stood_still_finds_that_another_has_come_and_gone(
    store: Store, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Lease(store, run_id).take("one")
    held.hold()
    held._ending.set()  # it renews no more
    held._thread.join()
    store.client.delete_tag(run_id, TAG)
    held.hold()  # a moment ago it was sure
    monkeypatch.setattr(lease, "SURE_SECONDS", 0.0)
    with pytest.raises(RecordError, match="got another one on another machine"):
        held.hold()


def test_who_lets_a_study_go_does_not_let_another_one_s_go(store: Store, run_id: str) -> None:
    held = Lease(store, run_id).take("one")
    held._ending.set()
    held._thread.join()
    elsewhere(store, run_id)
    taken = {**tag(store, run_id), "id": "other"}
    store.client.set_tag(run_id, TAG, json.dumps(taken))
    held.release()
    assert tag(store, run_id) == taken


def test_of_two_that_take_a_study_at_once_one_has_it_however_slow_it_is_to_write(
    store: Store, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, slow = Lease(store, run_id), Lease(store, run_id)
    for each, name in ((fast, "fast"), (slow, "slow")):
        each._mine |= {"machine": name, "host": name}
    write = slow._write
    monkeypatch.setattr(slow, "_write", lambda: (fast.take("one"), time.sleep(0.4), write()))
    slow.take("one")  # it has read that nobody has it
    fast._thread.join(10)
    with pytest.raises(RecordError, match="on slow"):
        fast.check()
    slow.check()
    slow.release()
