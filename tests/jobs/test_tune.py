"""Whole studies on a real Ray and a real MLflow store, and what they leave on record."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import socket
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import ray.tune.tune as tune_module

from mlops.console import run_job
from mlops.nn.records import METRIC_NAMES
from mlops.tracking.models import registry
from mlops.tracking.store.store import Store, open_store
from mlops.tracking.study.storage import RECORD, study_folder
from mlops.tuning import known
from mlops.tuning.training import loop
from ray_jobs import train, tune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("ray_cluster")]

SPACE = {
    "hidden_dims": {"choice": [[8], [16], [16, 8]]},
    "batch_size": {"choice": [32, 64]},
    "learning_rate": {"loguniform": [1e-3, 1e-2]},
    "dropout": {"uniform": [0.0, 0.3]},
}


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return open_store()


def study(*flags: object, space: dict[str, Any] = SPACE) -> dict[str, Any]:
    argv = ["--space", json.dumps(space), "--epochs", "3", *map(str, flags)]
    return tune.main(argv)


def children(store: Store, run_id: str) -> list[Any]:
    query = f"tags.mlflow.parentRunId = '{run_id}'"
    runs = store.client.search_runs([store.experiment_id], query, max_results=1000)
    return sorted(runs, key=lambda run: int(run.data.tags["trial"]))


def epochs_of(store: Store, run: Any, metric: str) -> list[int]:
    return sorted(m.step for m in store.client.get_metric_history(run.info.run_id, metric))


@pytest.fixture(scope="module")
def recorded(store: Store) -> dict[str, Any]:
    return study("--max_evals", 7, "--pack_size", 2, "--study", "recorded")


def test_every_trial_has_one_child_run_with_every_epoch(
    store: Store, recorded: dict[str, Any]
) -> None:
    runs = children(store, recorded["run_id"])
    assert [int(run.data.tags["trial"]) for run in runs] == list(range(7))
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.tags["outcome"] == "completed"
        assert run.data.tags["study"] == "recorded"
        for metric in METRIC_NAMES:
            assert epochs_of(store, run, metric) == [1, 2, 3]
        assert set(run.data.params) == {
            "hidden_dims",
            "learning_rate",
            "batch_size",
            "epochs",
            "dropout",
            "weight_decay",
            "label_smoothing",
            "activation",
        }


def test_a_store_that_does_not_open_ends_the_search_under_way(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server takes connections and says nothing: known to be dead when trials have begun."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        flags = ["--max_evals", 2000, "--pack_size", 1, "--epochs", 200, "--study", "silent"]
        assert run_job(lambda: study(*flags)) == 2
    errors = capfd.readouterr().err
    assert "0/2000 trials" in errors
    assert "2000/2000 trials" not in errors
    assert errors.splitlines()[-1].startswith("error: the tracking server must be reachable, got")
    assert "Traceback" not in errors


def test_the_next_ctrl_c_is_the_jobs_again(recorded: dict[str, Any]) -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_trial_0_is_the_default_configuration(store: Store, recorded: dict[str, Any]) -> None:
    params = children(store, recorded["run_id"])[0].data.params
    assert params["hidden_dims"] == "[64, 32]"
    assert (params["learning_rate"], params["batch_size"]) == ("0.001", "32")


def test_the_best_trial_is_the_one_with_the_best_score(
    store: Store, recorded: dict[str, Any]
) -> None:
    scores = [run.data.metrics["best_val_accuracy"] for run in children(store, recorded["run_id"])]
    assert recorded["best"]["score"] == scores[recorded["best"]["trial"]] == max(scores)


def test_the_study_run_has_settings_table_scores_pictures_and_data(
    store: Store, recorded: dict[str, Any]
) -> None:
    run = store.client.get_run(recorded["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["max_evals"] == "7"
    assert run.data.tags["best_trial"] == str(recorded["best"]["trial"])
    for part in ("train", "val", "test"):
        for name in ("loss", "accuracy", "f1"):
            assert math.isfinite(run.data.metrics[f"{part}_{name}"])
    files = {item.path for item in store.client.list_artifacts(recorded["run_id"])}
    assert {
        "settings.yaml",
        "trials.csv",
        "best_trial.json",
        "confusion_matrix.png",
        "confusion_matrix.json",
        "notes.json",
    } <= files
    assert recorded["notes"] == []
    table = Path(store.client.download_artifacts(recorded["run_id"], "trials.csv"))
    with table.open() as file:
        assert [int(row["trial"]) for row in csv.DictReader(file)] == list(range(7))
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.name == "synthetic"


def test_the_validation_score_of_the_model_is_the_trial_s(recorded: dict[str, Any]) -> None:
    assert recorded["val_accuracy"] == pytest.approx(recorded["best"]["score"], abs=1e-12)
    assert recorded["val_loss"] == pytest.approx(recorded["best"]["metrics"]["val_loss"], abs=1e-5)


def test_the_model_is_the_registered_candidate(store: Store, recorded: dict[str, Any]) -> None:
    version = store.client.get_model_version_by_alias("mlp", "candidate")
    assert int(version.version) >= recorded["model"]["version"]
    assert (
        store.client.get_model_version("mlp", str(recorded["model"]["version"])).run_id
        == (recorded["run_id"])
    )


@pytest.mark.parametrize(
    "names",
    [[f"{'x' * 95}{i:05d}" for i in range(12_000)], [f"c{i}" for i in range(16_000)]],
    ids=["12,000 long names", "16,000 short ones"],
)
def test_a_table_of_thousands_of_columns_is_recorded_and_told(
    names: list[str], store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cells = np.random.default_rng(0).normal(size=(60, len(names))).astype(np.float32)
    frame = pd.DataFrame(cells, columns=names)
    frame["y"] = (cells[:, 0] > 0).astype(int)
    frame.to_parquet(tmp_path / "wide.parquet")
    done = train.main(
        ["--data.path", str(tmp_path / "wide.parquet"), "--data.target", "y", "--epochs", "1",
         "--hidden_dims", "[4]", "--tracking.model_name", "wide"]
    )  # fmt: skip
    [note] = [note for note in done["notes"] if note["code"] == "schema_shortened"]
    assert note["text"] in capfd.readouterr().err
    run = store.client.get_run(done["run_id"])
    assert run.info.status == "FINISHED"
    content = store.read_bytes(done["run_id"], "notes.json")
    assert content is not None
    assert json.loads(content) == done["notes"]
    found = registry.load_version(store, "wide", done["model"]["version"])
    assert [column.name for column in found.predictor.encoder.columns] == names
    assert found.predictor.training_columns == (*names, "y")


def test_the_same_study_again_gives_the_same_table(store: Store, recorded: dict[str, Any]) -> None:
    again = study("--max_evals", 7, "--pack_size", 2, "--study", "again")
    first, second = (children(store, r["run_id"]) for r in (recorded, again))
    assert [run.data.params for run in first] == [run.data.params for run in second]
    for one, other in zip(first, second, strict=True):
        assert one.data.metrics["val_loss"] == other.data.metrics["val_loss"]


def test_a_repeated_configuration_is_recorded_but_not_trained_again(store: Store) -> None:
    result = study(
        "--max_evals", 6, "--pack_size", 2, space={"hidden_dims": {"choice": [[8], [4]]}}
    )
    runs = children(store, result["run_id"])
    assert len(runs) == 6
    duplicates = [run for run in runs if "duplicate_of" in run.data.tags]
    assert len(duplicates) == 3  # the default, [8] and [4] are trained
    for run in duplicates:
        original = runs[int(run.data.tags["duplicate_of"])]
        assert run.data.params == original.data.params
        assert run.data.metrics == original.data.metrics
        assert epochs_of(store, run, "val_loss") == [1, 2, 3]
        assert run.data.tags["outcome"] == "completed"


def test_a_member_that_diverges_fails_alone(store: Store) -> None:
    space = {"learning_rate": {"choice": [0.001, 10.0]}, "hidden_dims": {"choice": [[64, 64, 64]]}}
    result = study(
        "--max_evals", 4, "--pack_size", 4, "--epochs", 20, "--search.algorithm", "random",
        "--defaults", json.dumps({"activation": "relu", "weight_decay": 99.0}), space=space,
    )  # fmt: skip
    assert result["outcomes"].get("failed", 0) >= 1
    for run in children(store, result["run_id"]):
        failed = run.data.params["learning_rate"] == "10.0"
        assert run.info.status == ("FAILED" if failed else "FINISHED")
        assert ("became" in run.data.tags.get("reason", "")) == failed


def test_pruned_trials_are_told_apart(store: Store) -> None:
    result = study(
        "--max_evals", 8, "--pack_size", 4, "--epochs", 8,
        "--pruning.eta", 2, "--pruning.min_epochs", 2,
    )  # fmt: skip
    assert result["outcomes"] == {"completed": 2, "pruned": 6}
    for run in children(store, result["run_id"]):
        epochs = epochs_of(store, run, "val_loss")
        assert epochs == list(range(1, len(epochs) + 1))
        assert (len(epochs) == 8) == (run.data.tags["outcome"] == "completed")


@pytest.fixture
def unknown_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray of a version whose loop nobody has read."""
    monkeypatch.setattr(loop, "READ_IN", "0.1")
    monkeypatch.setattr(tune_module, "TuneController", None)
    known._tell.cache_clear()


def test_tunes_own_loop_trains_the_same_trials(
    store: Store, recorded: dict[str, Any], unknown_loop: None, capfd: pytest.CaptureFixture[str]
) -> None:
    result = study("--max_evals", 7, "--pack_size", 2, "--study", "by Tune's own")
    assert tune_module.TuneController is loop.TUNES_OWN
    assert "and 0.1 was read: Tune's own loop trains" in capfd.readouterr().err
    ours, theirs = (children(store, done["run_id"]) for done in (recorded, result))
    for one, other in zip(ours, theirs, strict=True):
        del one.data.metrics["seconds"], other.data.metrics["seconds"]
        assert (one.data.params, one.data.metrics) == (other.data.params, other.data.metrics)
        assert other.info.status == "FINISHED"
        assert epochs_of(store, other, "val_loss") == [1, 2, 3]
    assert result["best"]["trial"] == recorded["best"]["trial"]


def test_a_study_that_tunes_own_loop_stops_goes_on(store: Store, unknown_loop: None) -> None:
    name = ["--study", "stopped by Tune's own"]
    stopped = study("--max_evals", 60, "--pack_size", 2, "--target", 0.5, *name)
    assert stopped["stopped"].startswith("the target was reached")
    assert set(stopped["outcomes"]) <= {"completed", "interrupted"}
    assert stopped["trials"] < 60
    statuses = {run.info.status for run in children(store, stopped["run_id"])}
    assert statuses <= {"FINISHED", "KILLED"}
    assert study("--resume", *name)["outcomes"] == {"completed": 60}


@pytest.mark.parametrize("algorithm", ["optuna", "random"])
def test_other_searchers(store: Store, algorithm: str) -> None:
    result = study("--max_evals", 5, "--pack_size", 2, "--search.algorithm", algorithm)
    assert result["outcomes"] == {"completed": 5}


def test_one_trial_a_worker(store: Store) -> None:
    result = study("--max_evals", 3, "--pack_size", 1)
    assert [int(run.data.tags["pack"]) for run in children(store, result["run_id"])] == [0, 1, 2]


def test_one_worker_when_asked_for_where_two_fit(store: Store) -> None:
    result = study("--max_evals", 8, "--pack_size", 1, "--epochs", 40, "--resources.workers", 1)
    runs = [run.info for run in children(store, result["run_id"])]
    assert [run.status for run in runs] == ["FINISHED"] * 8
    assert all(before.end_time <= after.start_time for before, after in pairwise(runs))


def test_train_is_a_study_of_one(store: Store) -> None:
    result = train.main(["--hidden_dims", "[16]", "--lr", "0.01", "--epochs", "4"])
    (run,) = children(store, result["run_id"])
    assert run.data.params["hidden_dims"] == "[16]"
    assert run.data.params["learning_rate"] == "0.01"
    assert epochs_of(store, run, "val_loss") == [1, 2, 3, 4]
    assert result["model"]["alias"] == "candidate"


def test_a_table_with_everything_in_it(folder: Path, store: Store) -> None:
    random = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame(
        {
            "net income": random.normal(size=n),
            "größe": random.integers(0, 9, n).astype(float),
            "home town": random.choice(["Rome", "Oslo", "Lima"], n),
            "member": random.random(n) < 0.5,
        }
    )
    label = np.where(frame["net income"] + (frame["home town"] == "Oslo") > 0.4, "yes", "no")
    frame.loc[::7, "net income"] = np.nan
    frame.loc[::11, "home town"] = None
    frame["will it?"] = label
    frame.to_csv(folder / "people.csv", index=False)
    result = study(
        "--max_evals", 4, "--pack_size", 2, "--epochs", 30,
        "--data.path", "people.csv", "--data.target", "will it?",
    )  # fmt: skip
    assert result["test_accuracy"] > 0.75
    mlflow.set_tracking_uri(store.uri)
    model = mlflow.pyfunc.load_model(f"models:/mlp/{result['model']['version']}")
    rows = frame.drop(columns="will it?").head(20)
    rows.loc[0, "home town"] = "Atlantis"
    answer = model.predict(rows)
    assert list(answer) == ["label", "probability_no", "probability_yes"]
    assert set(answer["label"]) <= {"yes", "no"}
    np.testing.assert_allclose(answer.iloc[:, 1:].sum(axis=1), 1.0, rtol=1e-6)
    mlflow.pytorch.load_model(f"models:/mlp/{result['model']['version']}")


@pytest.mark.parametrize(
    ("name", "least"), [("breast_cancer", 0.92), ("wine", 0.85), ("digits", 0.9)]
)
def test_tables_of_scikit_learn(store: Store, name: str, least: float) -> None:
    result = study("--max_evals", 4, "--pack_size", 4, "--epochs", 30, "--data.sklearn", name)
    assert result["test_accuracy"] >= least


@pytest.mark.parametrize(
    ("file", "target", "least"),
    [
        ("phoneme.csv", "nasal", 0.78),
        ("credit_g.csv", "class", 0.66),
        ("pima_diabetes.csv", "diabetes", 0.65),
    ],
)
def test_real_tables(store: Store, shared_data: Path, file: str, target: str, least: float) -> None:
    result = study(
        "--max_evals", 4, "--pack_size", 2, "--epochs", 10,
        "--data.path", shared_data / file, "--data.target", target,
    )  # fmt: skip
    assert result["test_accuracy"] >= least


def test_a_given_test_file(store: Store, shared_data: Path) -> None:
    result = study(
        "--max_evals", 2, "--pack_size", 2, "--epochs", 2,
        "--data.path", shared_data / "adult_train.csv", "--data.target", "income",
        "--data.test_path", shared_data / "adult_test.csv",
    )  # fmt: skip
    confusion = store.client.download_artifacts(result["run_id"], "confusion_matrix.json")
    matrix = json.loads(Path(confusion).read_text())["matrix"]
    assert sum(map(sum, matrix)) == 16_281
    assert result["test_accuracy"] > 0.82


def kill_workers(times: int, seconds: float, killed: list[int]) -> None:
    """Kills the process of a pack, once it trains, and the next one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and len(killed) < times:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_text()
            except OSError:
                continue
            pid = int(process.name)
            if pid not in killed and line.startswith("ray::") and ".train" in line:
                time.sleep(0.5)
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break
        time.sleep(0.05)


def test_a_worker_that_dies_each_time_fails_its_trials_and_says_why(
    store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    killed: list[int] = []
    killer = threading.Thread(target=kill_workers, args=(3, 100, killed))
    killer.start()
    flags = ["--max_evals", 2, "--pack_size", 2, "--epochs", 4000, "--study", "dies"]
    assert run_job(lambda: study(*flags, "--max_failures", 0)) == 1
    killer.join()
    assert len(killed) == 3  # the pack's, and each of its trials' alone
    out, err = capfd.readouterr()
    assert "got 2 without" in err.splitlines()[-1]
    assert out == ""  # Ray tells of it, but not where the job's result goes
    runs = store.client.search_runs([store.experiment_id], "tags.study = 'dies'")
    assert [run.info.status for run in runs] == ["FAILED"] * 3
    reasons = {run.data.tags["reason"] for run in runs if "trial" in run.data.tags}
    assert len(reasons) == 1
    assert "its worker process has died" in reasons.pop()


def test_a_spent_time_budget_ends_a_study_with_its_best_model(store: Store) -> None:
    flags = ["--max_evals", 20000, "--pack_size", 4, "--study", "budget"]
    result = study(*flags, "--time_budget", 15)
    assert result["stopped"] == "the time_budget was spent"
    assert result["trials"] < 20000
    assert result["model"]["version"]
    runs = children(store, result["run_id"])
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    reasons = {run.data.tags.get("reason") for run in runs if run.info.status == "KILLED"}
    assert reasons <= {"the time_budget was spent"}
    assert store.client.get_run(result["run_id"]).info.status == "FINISHED"


def test_more_workers_than_fit_is_refused(store: Store, capsys: pytest.CaptureFixture) -> None:
    before = len(store.client.search_runs([store.experiment_id]))
    assert run_job(lambda: study("--max_evals", 2, "--resources.workers", 999)) == 2
    assert "999 workers" in capsys.readouterr().err
    assert len(store.client.search_runs([store.experiment_id])) == before


@pytest.mark.parametrize("name", ["churn", "../churn/ü '", "名" * 250])
def test_nothing_of_a_user_s_vanishes_from_the_storage(
    name: str, store: Store, tmp_path: Path
) -> None:
    """With checkpoints, and gone on with; the folder of the study's name is the user's own."""
    table = study_folder(tmp_path / "shared", name) / "table.csv"
    table.parent.mkdir(parents=True)
    table.write_text("a,b\n")
    flags = ["--study", name, "--storage", str(tmp_path / "shared"), "--pack_size", 2]
    elsewhere = set(Path(tempfile.gettempdir()).iterdir())
    flags += ["--checkpoint_every", 0.01]
    study(*flags, "--max_evals", 4)
    result = study(*flags, "--max_evals", 6, "--resume")
    assert result["trials"] == 6
    left = set(Path(tempfile.gettempdir()).iterdir()) - elsewhere
    assert not [path for path in left if "churn" in path.name]
    assert table.read_text() == "a,b\n"
    assert [*(tmp_path / "shared").rglob("*")] == [table.parent, table]


def test_a_file_of_a_user_s_in_a_study_s_way_is_told_before_anything_starts(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    theirs = study_folder(tmp_path, "record") / RECORD
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    flags = ["--study", "record", "--storage", str(tmp_path), "--max_evals", 2]
    assert run_job(lambda: study(*flags)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: storage: must have no other's file where a study keeps its own")
    assert f"got {theirs}; move it away" in line
    assert theirs.read_text() == "theirs"
