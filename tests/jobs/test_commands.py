"""The jobs as commands: exit codes, what goes where, MLproject entries."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from mlops.tracking.store.store import open_store

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    """The environment of a user who has activated the virtual environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT)}


def command(
    environment: dict[str, str], *words: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], env=environment, cwd=cwd, capture_output=True, text=True
    )


def job(environment: dict[str, str], name: str, *flags: object) -> subprocess.CompletedProcess[str]:
    return command(environment, sys.executable, "-m", f"ray_jobs.{name}", *flags)


def processes_of(marker: str) -> list[str]:
    """Command lines of the processes that have `marker` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def test_tune_reports_on_stderr_and_answers_with_one_json_line(
    environment: dict[str, str], folder: Path
) -> None:
    marked = {**environment, "MLOPS_TEST_MARK": "tune-leaves-nothing"}
    done = job(marked, "tune", "--max_evals", 3, "--epochs", 2)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["trials"] == 3
    assert (folder / "mlflow.db").exists()
    assert (folder / "mlruns").is_dir()
    lines = done.stderr.splitlines()
    assert lines[0] == "starting Ray"
    assert "1,000 rows, 20 columns (20 numeric), 2 classes" in lines[1]
    assert lines[-2].startswith("3/3 trials · best val_accuracy")
    assert lines[-1].startswith("test accuracy 0.")
    assert "mlp version 1 in sqlite:///" in lines[-1]
    assert lines[-1].endswith("is now champion: there was no champion")
    assert (result["promotion"]["champion"], result["promotion"]["before"]) == (1, None)
    assert not any("Warning" in line or "Traceback" in line for line in lines)
    deadline = time.monotonic() + 20
    while (left := processes_of("tune-leaves-nothing")) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []


def test_sigterm_interrupts_a_study_and_leaves_no_run_open(
    environment: dict[str, str], folder: Path
) -> None:
    flags = ["--max_evals", "400", "--epochs", "100", "--study", "interrupted"]
    words = [sys.executable, "-m", "ray_jobs.tune", *flags]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "best" in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    store = open_store()
    runs = store.client.search_runs([store.experiment_id], "tags.study = 'interrupted'")
    statuses = {run.info.status for run in runs}
    assert "KILLED" in statuses
    assert "RUNNING" not in statuses


def test_an_address_without_a_cluster_is_refused_at_once(
    environment: dict[str, str], tmp_path: Path
) -> None:
    away = {**environment, "RAY_ADDRESS": "127.0.0.1:1"}
    done = command(away, sys.executable, "-m", "ray_jobs.train", cwd=tmp_path)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: address: must be that of a running cluster, got 127.0.0.1:1 (")
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_a_line(environment: dict[str, str], tmp_path: Path) -> None:
    """Room for the new database, but not for the study."""
    mount = command(environment, "mount", "-t", "tmpfs", "-o", "size=960k", "tmpfs", tmp_path)
    if mount.returncode:
        pytest.skip("only root may mount")
    try:
        words = [sys.executable, "-m", "ray_jobs.tune", "--max_evals", "3", "--epochs", "2"]
        done = command(environment, *words, cwd=tmp_path)
    finally:
        command(environment, "umount", tmp_path)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "disk" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--data.path", "missing.csv", "--data.target", "y"], "missing.csv"),
        (["--data.path", "good.csv", "--data.target", "z"], "z"),
        (["--data.path", "one_class.csv", "--data.target", "y"], "class"),
        (["--max_eval", "3"], "did you mean --max_evals?"),
        (["--space", '{"dropout": {"uniform": [0.5, 0.1]}}'], "low must be below high"),
    ],
)
def test_bad_input_ends_with_2_and_leaves_nothing(
    environment: dict[str, str], tmp_path: Path, flags: list[str], expected: str
) -> None:
    pd.DataFrame({"x": range(20), "y": [0, 1] * 10}).to_csv(tmp_path / "good.csv", index=False)
    pd.DataFrame({"x": range(20), "y": [1] * 20}).to_csv(tmp_path / "one_class.csv", index=False)
    before = set(tmp_path.iterdir())
    done = command(environment, sys.executable, "-m", "ray_jobs.tune", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())
    assert done.stdout == ""
    assert set(tmp_path.iterdir()) == before


def test_generate_data_then_tune_on_it(environment: dict[str, str], folder: Path) -> None:
    done = job(environment, "generate_data", "--n_samples", 200, "--n_classes", 3,
               "--output", "three.csv")  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(folder / "three.csv")
    assert table.shape == (200, 21)
    assert list(table)[-1] == "target"
    done = job(environment, "train", "--data.path", "three.csv", "--data.target", "target",
               "--epochs", 2)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_init_mlflow_is_harmless_when_repeated(environment: dict[str, str]) -> None:
    first, second = (job(environment, "init_mlflow") for _ in range(2))
    assert first.returncode == second.returncode == 0
    assert json.loads(first.stdout) == json.loads(second.stdout)


@pytest.mark.parametrize(
    ("entry", "parameters"),
    [
        ("init_mlflow", []),
        (
            "generate_data",
            ["n_samples=100", "n_features=5", "n_classes=2", "output={folder}/small.parquet"],
        ),
        ("train", ["hidden_dims=[16, 8]", "lr=0.01", "batch_size=64", "epochs=2"]),
        ("tune", ["max_evals=2", "data.sklearn=iris", "epochs=3"]),
    ],
)
def test_mlproject_entries(
    environment: dict[str, str], folder: Path, entry: str, parameters: list[str]
) -> None:
    store = open_store()
    before = {run.info.run_id for run in store.client.search_runs([store.experiment_id])}
    words = [word for text in parameters for word in ("-P", text.format(folder=folder))]
    uri = {"MLFLOW_TRACKING_URI": store.uri}
    done = command(
        {**environment, **uri}, "mlflow", "run", ROOT, "-e", entry, "--env-manager", "local",
        "--experiment-name", store.experiment_name, *words,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    runs = store.client.search_runs([store.experiment_id])
    new = [run for run in runs if run.info.run_id not in before]
    parents = [run for run in new if "mlflow.project.entryPoint" in run.data.tags]
    assert [run.data.tags["mlflow.project.entryPoint"] for run in parents] == [entry]
    assert all(run.info.status == "FINISHED" for run in new)
    if entry in ("train", "tune"):
        (parent,) = parents
        assert parent.info.run_name.startswith(f"{entry}-20")
        assert len(new) == 1 + (2 if entry == "tune" else 1)
        assert parent.data.metrics["test_accuracy"] > 0.5
    assert (folder / "small.parquet").exists() == (entry == "generate_data")
    (folder / "small.parquet").unlink(missing_ok=True)
