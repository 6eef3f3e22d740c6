"""The exception tree, and what a job says and returns."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlops import errors
from mlops.console import run_job
from mlops.errors import (
    InputError,
    MlopsError,
    RecordError,
    RemoteJobError,
    RequestError,
    ServingError,
    SettingsError,
    StudyError,
    TableError,
    TrackingError,
)

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("kind", "base", "status"),
    [
        (MlopsError, Exception, 1),
        (InputError, MlopsError, 2),
        (SettingsError, InputError, 2),
        (TableError, InputError, 2),
        (TrackingError, MlopsError, 2),
        (RecordError, MlopsError, 1),
        (StudyError, MlopsError, 1),
        (RequestError, MlopsError, 1),
        (ServingError, MlopsError, 1),
        (RemoteJobError, MlopsError, 1),
    ],
)
def test_tree(kind: type[MlopsError], base: type[Exception], status: int) -> None:
    assert kind.__bases__[0] is base
    assert kind.exit_code == status
    assert kind.__name__ in (errors.__doc__ or "")


def test_every_error_has_the_base() -> None:
    found = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(found) == 10
    assert all(issubclass(kind, MlopsError) for kind in found)


@pytest.mark.parametrize(
    ("given", "problems", "text"),
    [
        ("one", ["one"], "one"),
        (["one", "two"], ["one", "two"], "one\ntwo"),
        (("one", "two"), ["one", "two"], "one\ntwo"),
    ],
)
def test_an_input_error_keeps_its_problems(given: Any, problems: list[str], text: str) -> None:
    error = TableError(given)
    assert error.problems == problems
    assert str(error) == text
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (SettingsError(["a: one", "b: two"]), 2, ["error: a: one", "error: b: two"]),
        (TableError("no rows"), 2, ["error: no rows"]),
        (TrackingError("no store"), 2, ["error: no store"]),
        (StudyError("no score"), 1, ["error: no score"]),
        (MlopsError("something"), 1, ["error: something"]),
    ],
)
def test_an_error_is_a_line_a_problem_and_an_exit_status(
    raised: MlopsError, status: int, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def job() -> Mapping[str, Any]:
        raise raised

    assert run_job(job) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == said


def test_an_interruption_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    def job() -> Mapping[str, Any]:
        raise KeyboardInterrupt

    assert run_job(job) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "interrupted" in err


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    def job() -> Mapping[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_job(job)


def test_help_goes_to_stdout() -> None:
    words = [sys.executable, "-m", "ray_jobs.tune", "--help"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m ray_jobs.tune")
    assert done.stderr == ""


def test_too_little_memory_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(lambda: {"rows": len(bytearray(2**62))}) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: the work must fit the memory, got")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_sigterm_is_taken_as_ctrl_c(on_ctrl_c: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def job() -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
        return {}

    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        assert run_job(job) == 130
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert "interrupted" in capsys.readouterr().err


def test_sigterm_interrupts_a_job_of_rays_too() -> None:
    """Ray blocks SIGINT in its jobs."""

    def job() -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
        return {}

    before = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        assert run_job(job) == 130
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, before)


def test_the_last_line_of_stdout_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"name": "ein\nZwölftel", "score": 0.5, "best": None, "rows": [1, 2]}

    def job() -> Mapping[str, Any]:
        print("progress", file=sys.stderr)
        return result

    assert run_job(job) == 0
    out, _ = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]) == result


@pytest.mark.parametrize("status", [0, 1, 2, 130])
def test_leave_writes_what_is_buffered_and_ends_at_once(status: int) -> None:
    code = f"""
import sys, threading, time
from mlops.console import leave
threading.Thread(target=time.sleep, args=(60,)).start()
sys.stdout.write("result"); sys.stderr.write("said")
leave({status})
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "result", "said")


@pytest.mark.parametrize("name", ["init_mlflow", "generate_data", "train", "tune"])
def test_a_job_refuses_bad_settings_without_a_traceback(name: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", f"ray_jobs.{name}", "--nope", "1", "--tracking.experimnt", "x"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: --") for line in lines)
    assert list(tmp_path.iterdir()) == []
