"""The serving jobs as a user runs them, with models from the job train."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from job import REPOSITORY, Job, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

BROAD = ["--data.synthetic.n_features", "5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose registry has a champion, another version, and one of other columns."""
    path = tmp_path_factory.mktemp("serving")
    for flags in (["--epochs", "1"], ["--epochs", "8"], [*BROAD, "--epochs", "1"]):
        done = command(path, "train", *flags)
        assert done.returncode == 0, done.stderr
    promoted = command(path, "promote", "--version", "1")
    assert promoted.returncode == 0, promoted.stderr
    return path


def environment(folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "MLOPS_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    uri = f"sqlite:///{folder}/mlflow.db"
    return {**kept, "PATH": path, "PYTHONPATH": str(REPOSITORY), "MLFLOW_TRACKING_URI": uri}


def command(folder: Path, job: str, *flags: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", f"ray_jobs.{job}", *flags]
    return subprocess.run(
        words, cwd=folder, env=environment(folder), capture_output=True, text=True
    )


@pytest.fixture
def endpoint(folder: Path) -> Iterator[Job]:
    uri = environment(folder)["MLFLOW_TRACKING_URI"]
    flags = ["-m", "ray_jobs.serve", "--poll_seconds", "0.5"]
    job = Job.start(folder, flags, MLFLOW_TRACKING_URI=uri)
    try:
        yield job.wait_until_serving()
    finally:
        job.process.kill()
        job.process.wait()


def ask(endpoint: Job, rows: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"rows": rows})
    status, _, content = endpoint.ask("/predict", "POST", body=body, headers=headers)
    return status, content


def version(endpoint: Job) -> int:
    return int(endpoint.ask("/model")[2]["version"])


def test_promotion_and_rollback_reach_a_running_endpoint_and_are_told(
    folder: Path, endpoint: Job
) -> None:
    assert "  model: version 1\n" in endpoint.said()
    table = pd.DataFrame({f"feature_{i}": [0.5 * i, -1.0, 2.0] for i in range(20)})
    rows = table.to_dict("records")
    status, answer = ask(endpoint, rows)
    assert (status, answer["model"]["version"]) == (200, 1)

    done = command(folder, "promote", "--version", "2")
    assert done.stderr.splitlines() == [
        "champion of mlp before: version 1",
        "champion of mlp now: version 2 (promoted by hand)",
    ]
    assert json.loads(done.stdout)["champion"] == 2
    wait_until(lambda: version(endpoint) == 2, "version 2 to be served", 30)
    wait_until(lambda: endpoint.said().endswith("\nmodel: version 2\n"), "the change to be told")
    _, answer = ask(endpoint, rows)

    # The job predict gives a table the answers of the endpoint.
    table.to_csv(folder / "rows.csv", index=False)
    scored = command(folder, "predict", "--input", "rows.csv", "--output", "scored.csv")
    assert scored.returncode == 0, scored.stderr
    labels = pd.read_csv(folder / "scored.csv")["label"].tolist()
    assert labels == [prediction["label"] for prediction in answer["predictions"]]

    # No way back to a version whose files were changed.
    found = folder.glob("mlruns/**/predictor/weights.safetensors")
    weights = min(found, key=lambda path: path.stat().st_mtime)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused = command(folder, "promote", "--rollback")
    assert refused.returncode == 2
    assert "got 1 changed, missing or added (predictor/weights.safetensors)" in refused.stderr
    weights.write_bytes(whole)

    assert command(folder, "promote", "--rollback").returncode == 0
    wait_until(lambda: version(endpoint) == 1, "version 1 to be served again", 30)
    wait_until(lambda: endpoint.said().endswith("\nmodel: version 1\n"), "the change to be told")
    assert endpoint.stop() == 0
    assert "Traceback" not in endpoint.said()


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["--version", "3"], 2, "--allow-schema-change"),
        (["--version", "99"], 2, "99"),
        (["--version", "0"], 2, "version"),
        (["--version", "1", "--rollback"], 2, "say one"),
        (["--tracking.model_name", "nobody"], 2, "nobody"),
    ],
)
def test_a_promotion_that_cannot_be_is_a_line(
    flags: list[str], status: int, words: str, folder: Path
) -> None:
    done = command(folder, "promote", *flags)
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_the_entries_of_the_mlproject(folder: Path) -> None:
    def entry(name: str, *parameters: str) -> list[str]:
        words = ["mlflow", "run", str(REPOSITORY), "-e", name, "--env-manager", "local"]
        return [*words, *(word for parameter in parameters for word in ("-P", parameter))]

    pd.DataFrame({f"feature_{i}": [0.5] for i in range(20)}).to_parquet(folder / "one.parquet")
    output = folder / "from_entry.parquet"
    for words in (
        entry("promote", "version=2"),
        entry("predict", f"input={folder / 'one.parquet'}", f"output={output}"),
    ):
        done = subprocess.run(words, env=environment(folder), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert pd.read_parquet(output)["label"].notna().all()

    uri = environment(folder)["MLFLOW_TRACKING_URI"]
    for name in ("serve", "app"):
        path = environment(folder)["PATH"]
        start = ["-m", *entry(name, "port={port}")]
        job = Job.start(folder, start, MLFLOW_TRACKING_URI=uri, PATH=path).wait_until_serving()
        try:
            assert version(job) == 2
        finally:
            for pid in job.pids(r"^\S*python\S* -m ray_jobs"):
                os.kill(pid, signal.SIGTERM)
            job.process.wait(60)
        wait_until(lambda job=job: not job.pids(), "its processes to end")


def test_other_columns_need_a_word(folder: Path) -> None:
    refused = command(folder, "promote", "--version", "3")
    assert refused.returncode == 2
    assert "--allow-schema-change" in refused.stderr
    done = command(folder, "promote", "--version", "3", "--allow-schema-change")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["champion"] == 3
    assert command(folder, "promote", "--rollback", "--allow_schema_change=true").returncode == 0
