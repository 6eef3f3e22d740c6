"""The tracking server as a team has it: real PostgreSQL, real `mlflow server`, real ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import mlflow
import psutil
import pytest
from servers import free_port, object_store

from mlops.errors import InputError
from mlops.tracking.server import postgresql
from mlops.tracking.server.addresses import guards
from mlops.tracking.server.server import Server, serve

pytestmark = pytest.mark.timeout(240)
PASSWORD = "a long password"


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that PostgreSQL's user can reach, unlike pytest's, which are closed to others."""
    try:
        postgresql.program("initdb")
    except InputError:
        pytest.skip("PostgreSQL is not installed here")
    made = Path(tempfile.mkdtemp(prefix="mlops-tracking-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


class Job:
    """A running job."""

    def __init__(self, folder: Path, *flags: str, **variables: str) -> None:
        self.uri = f"http://127.0.0.1:{free_port()}"
        words = [sys.executable, "-m", "ray_jobs.tracking_server", "--workers", "1"]
        words += ["--port", self.uri.rpartition(":")[2], "--folder", str(folder), *flags]
        environment = {**os.environ, **variables}
        self.process = subprocess.Popen(
            words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stderr is not None
        self.said = ""
        for line in self.process.stderr:
            self.said += line
            if line.startswith("clients:"):
                break
        self.needs = 2 if "--database" in flags else 4
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def end(self, how: signal.Signals) -> int:
        """Ends it; all that it has started must be gone soon."""
        self.process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        """Waits until it has ended, with all that it has started."""
        assert self.process.stderr is not None
        self.said += self.process.stderr.read()
        self.process.stderr.close()
        status = self.process.wait(60)
        assert len(self.family) >= self.needs
        _, alive = psutil.wait_procs(self.family, timeout=20)
        assert not alive
        return status


@contextmanager
def serving(folder: Path, *flags: str, **variables: str) -> Iterator[Job]:
    job = Job(folder, *flags, **variables)
    try:
        yield job
    finally:
        if job.process.poll() is None:
            job.end(signal.SIGTERM)


def status_of(uri: str, data: bytes | None = None, **headers: str) -> int:
    try:
        with urlopen(Request(uri, data, headers), timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def call(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_record_outlives_the_server_whatever_ends_it(folder: Path) -> None:
    with serving(folder) as job:
        assert f"export MLFLOW_TRACKING_URI={job.uri}" in job.said
        done = call("ray_jobs.train", "--epochs", "2", MLFLOW_TRACKING_URI=job.uri)
        assert done.returncode == 0, done.stderr
        assert [*(folder / "artifacts").rglob("weights.safetensors")]
        experiment = f"{job.uri}/api/2.0/mlflow/experiments/get?experiment_id=0"
        assert status_of(experiment, Host="evil.example") == 403
        assert status_of(experiment) == 200

        port = str(free_port())
        held = call("ray_jobs.tracking_server", "--folder", str(folder), "--port", port)
        assert held.returncode == 2
        assert "folder: must be without a server" in held.stderr
        taken = ["--folder", str(folder / "other"), "--port", job.uri.rpartition(":")[2]]
        busy = call("ray_jobs.tracking_server", *taken)
        assert busy.returncode == 2
        assert "must be free to listen on" in busy.stderr
        assert "Traceback" not in held.stderr + busy.stderr

        assert job.end(signal.SIGKILL) == -signal.SIGKILL
    with serving(folder) as job:
        client = mlflow.MlflowClient(job.uri)
        assert client.get_model_version_by_alias("mlp", "champion").version == "1"
        assert job.end(signal.SIGINT) == 130
        assert "interrupted; the record is kept" in job.said
    assert "Traceback" not in job.said


@pytest.mark.slow
def test_a_server_without_its_database_ends(folder: Path) -> None:
    with serving(folder) as job:
        (postgresql,) = [each for each in job.family if "listen_addresses=" in each.cmdline()]
        postgresql.kill()
        assert job.ended() == 1
        assert "error: PostgreSQL must go on, got exit status -9; see " in job.said
        assert "Traceback" not in job.said
    with serving(folder):
        pass


@pytest.mark.slow
def test_relative_paths_are_of_the_folder_in_which_it_is_started(tmp_path: Path) -> None:
    flags = ["--artifacts", "kept", "--database", "sqlite:///kept.db"]
    with serving(tmp_path / "server", *flags) as job:
        client = mlflow.MlflowClient(job.uri)
        run = client.create_run("0")
        client.log_text(run.info.run_id, "text", "a.txt")
        assert [*(tmp_path / "kept").rglob("a.txt")]
        assert (tmp_path / "kept.db").stat().st_size > 0


@pytest.mark.slow
def test_who_has_no_password_is_not_let_in(folder: Path) -> None:
    account = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    flags = ["--host", "0.0.0.0", "--authentication", "true"]
    with serving(folder, *flags, **account) as job:
        assert status_of(f"{job.uri}/api/2.0/mlflow/experiments/get?experiment_id=0") == 401
        # By the name that clients are told, and from a page that it has under that name.
        port = job.uri.rpartition(":")[2]
        told = f"{socket.gethostname()}:{port}"
        assert f"clients: export MLFLOW_TRACKING_URI=http://{told}\n" in job.said
        search = f"{job.uri}/ajax-api/2.0/mlflow/runs/search"
        assert status_of(search, b"{}", Host=told, Origin=f"http://{told}") == 401
        assert status_of(search, b"{}", Host=told, Origin="http://evil.example") == 403
        assert status_of(search, b"{}", Host=f"evil.example:{port}") == 403
        wrong = {**account, "MLFLOW_TRACKING_PASSWORD": "another password"}
        for given in (wrong, {}):
            refused = call("ray_jobs.init_mlflow", MLFLOW_TRACKING_URI=job.uri, **given)
            assert refused.returncode == 2, refused.stderr
            assert refused.stderr.startswith("error: ")
            assert len(refused.stderr.splitlines()) == 1
        let_in = call("ray_jobs.init_mlflow", MLFLOW_TRACKING_URI=job.uri, **account)
        assert let_in.returncode == 0, let_in.stderr
        for path in folder.rglob("*"):
            if path.is_file() and path.name in ("authentication.ini", "session.key"):
                assert path.stat().st_mode & 0o777 == 0o600
        words = [" ".join(process.cmdline()) for process in job.family]
        assert not any(PASSWORD in line for line in words)
        for log in folder.glob("*.log"):
            assert PASSWORD not in log.read_text(errors="replace")


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_of_two_servers_started_at_once_on_a_port_one_serves(tmp_path: Path) -> None:
    port = str(free_port())
    words = [sys.executable, "-m", "ray_jobs.tracking_server", "--workers", "1", "--port", port]
    servers = []
    for name in ("one", "other"):
        database = f"sqlite:///{tmp_path}/{name}.db"
        flags = ["--folder", str(tmp_path / name), "--database", database]
        servers.append(subprocess.Popen([*words, *flags], stderr=subprocess.PIPE, text=True))
    try:
        deadline = time.monotonic() + 120
        while not (ended := [server for server in servers if server.poll() is not None]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        (failed,) = ended
        assert failed.returncode == 2
        assert failed.stderr is not None
        said = failed.stderr.read()
        assert "serving the record" not in said
        assert "mlflow server must start, got: " in said
        (serving_one,) = [server for server in servers if server is not failed]
        assert serving_one.stderr is not None
        while "clients:" not in (line := serving_one.stderr.readline()):
            assert line
        assert status_of(f"http://127.0.0.1:{port}/health") == 200
    finally:
        for server in servers:
            server.terminate()
            server.wait(60)
            if server.stderr is not None:
                server.stderr.close()


@pytest.mark.slow
def test_artifacts_in_an_object_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store(monkeypatch) as bucket:
        url = os.environ["AWS_ENDPOINT_URL"]
        flags = ["--artifacts", f"{bucket}/artifacts"]
        with serving(folder, *flags, MLFLOW_S3_ENDPOINT_URL=url) as job:
            mlflow.set_tracking_uri(job.uri)
            client = mlflow.MlflowClient()
            run = client.create_run("0")
            client.log_text(run.info.run_id, "text", "a.txt")
            assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/a.txt") == "text"
            assert not [*folder.rglob("a.txt")]


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        ({"host": "0.0.0.0"}, {}, "of this machine alone without authentication, got 0.0.0.0; add"),
        ({"authentication": True}, {}, "letters or more in MLFLOW_TRACKING_PASSWORD, got none"),
        (
            {"authentication": True},
            {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "short"},
            "got a shorter one; set them",
        ),
        ({"artifacts": "gs://bucket"}, {}, "must be a folder or s3://BUCKET/PATH, got gs://bucket"),
        ({"folder": "/proc/none"}, {}, "folder: must be one that can be written, got /proc/none"),
        (
            {"host": "203.0.113.7", "authentication": True},
            {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD},
            "must be free to listen on, got http://203.0.113.7",
        ),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(
    given: dict[str, Any],
    variables: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as raised:
        serve(Server(**{"port": free_port(), **given}))
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_is_no_folder_for_data(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "postgresql").touch()
    with pytest.raises(InputError, match=r"folder: must be one .* got .*/postgresql \(File exists"):
        serve(Server(port=free_port(), folder=str(tmp_path)))


@pytest.mark.parametrize(
    "name", ["postgresql/PG_VERSION", "authentication.ini", "session.key", "mlflow.log", "lock"]
)
def test_a_folder_that_is_another_s_is_left_as_it_is(name: str, tmp_path: Path) -> None:
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("theirs")
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=r"folder: must be a new one or a server's own, got .*is"):
        serve(Server(port=free_port(), folder=str(tmp_path)))
    assert theirs.read_text() == "theirs"
    assert {path: path.stat() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("given", "hosts", "origins"),
    [
        ("mlflow.example.com", ["mlflow.example.com:*"], ["https://mlflow.example.com"]),
        ("a, [fd00::1]", ["a", "a:*", "[[]fd00::1]:*"], ["http://a:*", "http://[[]fd00::1]:*"]),
        (None, ["10.*", "127.0.0.1"], ["http://127.0.0.1:*"]),
    ],
)
def test_by_what_names_it_may_be_called(
    given: str | None, hosts: list[str], origins: list[str]
) -> None:
    flags = guards("127.0.0.1", given)
    said = {flag: text.split(",") for flag, text in zip(flags[::2], flags[1::2], strict=True)}
    assert {*hosts} <= {*said["--allowed-hosts"]}
    assert {*origins} <= {*said["--cors-allowed-origins"]}
    assert not any("10.*" in origin for origin in said["--cors-allowed-origins"])


def test_postgresql_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    with pytest.raises(InputError, match="PostgreSQL must be installed, got no initdb; `apt"):
        serve(Server(port=free_port(), folder=str(tmp_path / "server")))


def test_a_database_that_cannot_be_reached(tmp_path: Path) -> None:
    database = f"postgresql+psycopg://me:secret@127.0.0.1:{free_port()}/mlflow"
    with pytest.raises(InputError, match=r"database: must be one .* refused") as raised:
        serve(Server(port=free_port(), folder=str(tmp_path / "server"), database=database))
    assert "secret" not in str(raised.value)
