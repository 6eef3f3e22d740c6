"""Jobs sent to a cluster: what is sent, what is shown, what is refused before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from servers import free_port

from mlops.cluster import submission
from mlops.cluster.job_log import JobLog
from mlops.errors import InputError, RemoteJobError


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (None, False),
        ("auto", False),
        ("ray://head:10001", True),
        ("head:6379", False),
        ("http://head:8265", True),
        ("https://head", True),
    ],
)
def test_a_job_is_sent_or_run_here(
    address: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert submission.destination(address) == (address if expected else None)
    monkeypatch.setenv("RAY_ADDRESS", "http://other:8265")
    assert submission.destination(address or None) == (
        "http://other:8265" if address is None else address if expected else None
    )


@pytest.mark.parametrize("flags", [["--address", "http://head:8265"], ["--address=http://x"]])
def test_the_address_is_not_for_the_job_there(flags: list[str]) -> None:
    sent = submission._without_address(["--epochs", "3", *flags, "--study", "--address-book"])
    assert sent == ["--epochs", "3", "--study", "--address-book"]


@pytest.mark.parametrize(
    "told",
    [
        RuntimeError("Request failed with status code 500: No available agent to submit job"),
        ConnectionAbortedError("Initialization failure from server:\nTimed out"),
    ],
)
def test_a_cluster_that_is_not_ready_is_asked_again(
    told: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission.time, "sleep", lambda seconds: None)
    left = [told, told]

    def ask() -> str:
        if left:
            raise left.pop()
        return "taken"

    assert submission._answered("ray://head:10001", ask) == "taken"
    monkeypatch.setattr(submission, "PATIENCE_SECONDS", -1.0)
    left.append(told)
    with pytest.raises(InputError, match="must be that of a job server that takes this job"):
        submission._answered("ray://head:10001", ask)
    left.append(ConnectionRefusedError("refused"))
    monkeypatch.undo()
    with pytest.raises(InputError, match="refused"):
        submission._answered("ray://head:10001", ask)


def details(status: str, code: int | None = None, message: str | None = None) -> Any:
    return SimpleNamespace(
        status=SimpleNamespace(value=status), driver_exit_code=code, message=message
    )


@pytest.mark.parametrize(
    ("ended", "status", "told"),
    [
        (details("FAILED", 2), 2, "the job job-1 must end well, got exit status 2, see above"),
        (details("FAILED", 1), 1, "got exit status 1"),
        (details("FAILED", None, "no such folder"), 1, "must start, got no such folder"),
        (details("STOPPED"), 130, "got stopped"),
        (details("SUCCEEDED", 0), 0, "must answer with a line of JSON"),
    ],
)
def test_who_waits_exits_as_the_job_did(ended: Any, status: int, told: str) -> None:
    with pytest.raises(RemoteJobError, match=told) as raised:
        submission._result(ended, JobLog(), "job-1")
    assert raised.value.exit_code == (status or 1)


def test_the_result_is_that_of_a_job_that_ended_well(capsys: pytest.CaptureFixture[str]) -> None:
    log = JobLog()
    log.add('starting Ray\n{"trials": 2}\n')
    assert submission._result(details("SUCCEEDED", 0), log, "job-1") == {"trials": 2}
    assert capsys.readouterr().err == "starting Ray\n"
    with pytest.raises(RemoteJobError):
        submission._result(details("FAILED", 1), log, "job-1")
    assert capsys.readouterr().err == '{"trials": 2}\n'


@pytest.mark.parametrize(
    ("uri", "address", "refused"),
    [
        ("sqlite:////here/mlflow.db", "http://127.0.0.1:8265", False),
        ("sqlite:////here/mlflow.db", "http://localhost:8265", False),
        ("sqlite:////here/mlflow.db", "http://head:8265", True),
        ("file:///mlruns", "https://head", True),
        ("http://head:5000", "http://head:8265", False),
        ("postgresql+psycopg://me@head/mlflow", "http://head:8265", False),
    ],
)
def test_the_store_must_be_one_that_the_cluster_reaches(
    uri: str, address: str, refused: bool
) -> None:
    if refused:
        with pytest.raises(InputError, match=f"tracking.uri: must be a store .* got {uri}"):
            submission._check_store(uri, address)
    else:
        submission._check_store(uri, address)


def test_a_server_that_is_not_there_is_named() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=f"address: must be that of a job server .* {address} "):
        submission.run("tune", [], address, "sqlite:///mlflow.db")
