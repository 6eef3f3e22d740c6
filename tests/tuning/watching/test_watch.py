"""What watches over workers: the silent ones, and that there are any; time is the test's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlops.tuning.training import loop
from mlops.tuning.watching import watch
from mlops.tuning.watching.ledger import Ledger
from mlops.tuning.watching.stopping import Stop
from mlops.tuning.watching.watch import Watch


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    return clock


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    killed: list[str] = []
    monkeypatch.setattr(loop.ray, "kill", killed.append)
    return killed


class Pack:
    """As much of a Tune trial as is looked at."""

    def __init__(self, name: str) -> None:
        self.temporary_state = SimpleNamespace(ray_actor=name)
        self.config = {"pack": name}
        self.error_file = None


def watching(silence: float | None = None, report_every: float = 0.0) -> tuple[Watch, Stop]:
    stop = Stop(Ledger("val_accuracy", 4))
    return Watch(stop, silence, absence=60, report_every=report_every), stop


def test_a_worker_that_is_silent_for_too_long_is_ended_once(
    clock: Clock, killed: list[str]
) -> None:
    watch, _ = watching(silence=10)
    quiet, busy, ended, lost = (Pack(name) for name in ("quiet", "busy", "ended", "lost"))
    for pack in (quiet, busy, ended, lost):
        given: Any = pack
        watch.on_trial_start(trial=given)
    watch.on_trial_complete(trial=ended)  # type: ignore[arg-type]
    watch.on_trial_recover(trial=lost)  # type: ignore[arg-type]
    for _ in range(40):
        clock.now += 1
        watch.on_trial_result(trial=busy)  # type: ignore[arg-type]
        watch.on_step_end()
        assert killed == (["quiet"] if clock.now > 115 else [])


@pytest.mark.parametrize("report_every", [1.0, 25.0, 300.0])
def test_a_worker_is_not_silent_before_it_is_to_report(
    clock: Clock, killed: list[str], report_every: float
) -> None:
    """It goes on all the time, whatever the limit on an epoch; its reports are far apart."""
    watch, _ = watching(silence=2, report_every=report_every)
    pack: Any = Pack("seldom")
    watch.on_trial_start(trial=pack)
    for _ in range(3):
        # Its last epoch before the report may take as long as the limit allows.
        for _ in range(int(report_every + 2)):
            clock.now += 1
            watch.on_step_end()
        watch.on_trial_result(trial=pack)
    assert killed == []
    clock.now += report_every + 2 + 6
    watch.on_step_end()
    assert killed == ["seldom"]


def test_a_worker_that_tune_does_not_name_is_left_to_end_itself(
    clock: Clock, killed: list[str]
) -> None:
    watch, stop = watching(silence=10)
    starting, of_other_tune = Pack("starting"), Pack("unknown")
    starting.temporary_state.ray_actor = None
    del of_other_tune.temporary_state
    for pack in (starting, of_other_tune):
        watch.on_trial_start(trial=pack)  # type: ignore[arg-type]
    clock.now += 30
    watch.on_step_end()
    assert (killed, stop.stop_all()) == ([], False)


def test_without_a_limit_nothing_is_too_long(clock: Clock, killed: list[str]) -> None:
    watch, stop = watching()
    watch.on_trial_start(trial=Pack("quiet"))  # type: ignore[arg-type]
    clock.now += 1e6
    watch.on_step_end()
    assert (killed, stop.stop_all()) == ([], False)


def test_a_study_without_workers_says_so_and_ends(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    watch, stop = watching()
    pack: Any = Pack("one")
    clock.now += 29
    watch.on_step_end()
    watch.on_trial_start(trial=pack)
    clock.now += 500
    watch.on_step_end()
    assert capsys.readouterr().err == ""
    watch.on_trial_recover(trial=pack)  # its machine is gone
    lost = "pack one is to be started again: its worker failed\n"
    assert capsys.readouterr().err == lost
    for _ in range(59):
        clock.now += 1
        watch.on_step_end()
    assert capsys.readouterr().err.splitlines() == [
        "no worker is there; stopping if there is none in 60 s in all"
    ]
    assert not stop.stop_all()
    clock.now += 2
    watch.on_step_end()
    assert stop.stop_all()
    assert stop.error == "there must be a worker, got none for 60 s"


def test_a_pack_that_is_started_again_is_told_of_once(
    clock: Clock, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    watch, _ = watching()
    pack: Any = Pack("one")
    pack.error_file = tmp_path / "error.txt"
    pack.error_file.write_text("Traceback\n  ...\nOSError: no disk\n\n")
    watch.on_trial_start(trial=pack)
    watch.on_trial_recover(trial=pack)
    watch.on_trial_start(trial=pack)
    watch.on_trial_start(trial=pack)
    assert capsys.readouterr().err.splitlines() == [
        "pack one is to be started again: its worker failed: OSError: no disk",
        "pack one is started again",
    ]
