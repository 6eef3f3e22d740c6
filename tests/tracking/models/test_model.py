from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.data.columns.features import FeatureEncoder
from mlops.errors import TrackingError
from mlops.nn.mlp import MLP
from mlops.nn.tasks.classification import Classification
from mlops.tracking import pyfunc
from mlops.tracking.models import checksums
from mlops.tracking.models.carried import modules_needed
from mlops.tracking.models.folder import REQUIREMENTS, write_folder
from mlops.tracking.models.model import LoggedModel, log_model
from mlops.tracking.pyfunc import Predictor
from mlops.tracking.store.store import Store

N_ROWS = 40


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "with a blank": rng.normal(size=N_ROWS),
            "whole": rng.integers(0, 9, N_ROWS),
            "sparse": np.where(rng.random(N_ROWS) < 0.3, np.nan, rng.normal(size=N_ROWS)),
            "text": pd.Series(rng.choice(["x", "y", "z"], N_ROWS)).where(rng.random(N_ROWS) < 0.8),
            "flag": rng.choice([True, False], N_ROWS),
        }
    )


def predictor(classes: list[Any], activation: str = "relu") -> Predictor:
    encoder = FeatureEncoder.fit(table())
    hyperparameters = Hyperparameters(hidden_dims=(8, 4), activation=activation, dropout=0.5)
    mlp = MLP(encoder.width, len(classes), (8, 4), activation, 0.5)
    mlp.reset(torch.Generator().manual_seed(0))
    return Predictor(mlp.eval(), encoder, Classification(classes), "target", hyperparameters)


def log(store: Store, made: Predictor) -> LoggedModel:
    return log_model(
        store,
        store.client.create_run(store.experiment_id).info.run_id,
        made,
        example=table(),
        metrics={"test_loss": 0.5, "test_accuracy": 0.75},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder as it is before it has ids, with its checksums."""
    path = tmp_path / "folder"
    write_folder(path, predictor(["no", "yes"]), table(), {})
    return path


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
def test_a_predictor_read_back_predicts_the_same(activation: str, tmp_path: Path) -> None:
    made = predictor(["a", "b", "c"], activation)
    pyfunc.write(tmp_path / "predictor", made, {"study": "one"})
    read, card = pyfunc.read(tmp_path / "predictor")
    assert card == {"study": "one"}
    pd.testing.assert_frame_equal(read.predict(table()), made.predict(table()), check_exact=True)
    assert (read.hyperparameters, read.encoder) == (made.hyperparameters, made.encoder)
    assert (read.task.classes, read.target_name) == (made.task.classes, "target")


def test_a_model_says_its_task_and_one_of_before_is_of_classes(tmp_path: Path) -> None:
    made = predictor([3, 1])
    pyfunc.write(tmp_path / "predictor", made, {})
    file = tmp_path / "predictor" / pyfunc.DESCRIPTION
    description = json.loads(file.read_text())
    assert (description["task"], description["classes"]) == ("classification", [3, 1])
    del description["task"]
    file.write_text(json.dumps(description))
    read, _ = pyfunc.read(tmp_path / "predictor")
    assert (read.task.name, read.task.classes) == ("classification", [3, 1])
    pd.testing.assert_frame_equal(read.predict(table()), made.predict(table()), check_exact=True)
    file.write_text(json.dumps({**description, "task": "reading tea leaves"}))
    told = "must be one of classification, got 'reading tea leaves'; use the version"
    with pytest.raises(TrackingError, match=told):
        pyfunc.read(tmp_path / "predictor")


def test_both_flavors_predict_what_was_trained(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    made = predictor(["no", "yes"])
    logged = log(store, made)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    expected = made.predict(table())
    loaded = mlflow.pyfunc.load_model(logged.uri)
    pd.testing.assert_frame_equal(loaded.predict(table()), expected)
    assert list(expected) == ["label", "probability_no", "probability_yes"]
    np.testing.assert_allclose(expected.iloc[:, 1:].sum(axis=1), 1.0, atol=1e-12)

    network = mlflow.pytorch.load_model(f"runs:/{logged.run_id}/model")
    x = torch.from_numpy(made.encoder.transform(table()))
    for n_rows in (1, 2, N_ROWS):
        with torch.inference_mode():
            torch.testing.assert_close(network(x[:n_rows]), made.mlp(x[:n_rows]))


def test_the_record_of_a_model(store: Store) -> None:
    logged = log(store, predictor(["no", "yes"]))
    entry = store.client.get_logged_model(logged.model_id)
    assert (entry.name, entry.source_run_id, entry.status) == ("model", logged.run_id, "READY")
    assert entry.tags["sha256"] == logged.sha256
    assert entry.params["hidden_dims"] == "[8, 4]"
    assert {m.key: m.value for m in entry.metrics} == {"test_loss": 0.5, "test_accuracy": 0.75}
    run = store.client.get_run(logged.run_id)
    assert run.data.metrics == {"test_loss": 0.5, "test_accuracy": 0.75}
    assert [output.model_id for output in run.outputs.model_outputs] == [logged.model_id]
    [value] = store.client.get_metric_history(logged.run_id, "test_loss")
    assert value.step == 0


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [(["no", "yes"], "str"), ([3, 7], "int64"), ([False, True], "bool"), ([0.5, 1.5], "float64")],
)
def test_labels_have_the_type_of_the_classes(classes: list[Any], dtype: str) -> None:
    predicted = predictor(classes).predict(table())
    assert predicted["label"].dtype == pd.Series(classes).dtype
    assert str(predicted["label"].dtype) in (dtype, "object")
    best = predicted.iloc[:, 1:].to_numpy().argmax(1)
    assert predicted["label"].tolist() == [classes[i] for i in best]


def _first(n_rows: int = 3, **columns: Any) -> pd.DataFrame:
    return table().head(n_rows).assign(**columns)


@pytest.mark.parametrize(
    ("frame", "same_as"),
    [
        (_first(1), _first(1)),
        (_first()[["flag", "text", "sparse", "whole", "with a blank"]], _first()),
        (_first(extra=1), _first()),
        (_first(whole=[1.0, 2.0, np.nan]), _first(whole=pd.array([1, 2, None], dtype="Int64"))),
        (_first(sparse=[1, 2, 3]), _first(sparse=[1.0, 2.0, 3.0])),
        (_first(text=np.nan), _first(text=None)),
        (_first(text=pd.Categorical(["x", "y", "?"])), _first(text=["x", "y", None])),
        (_first(flag=["True", "False", None]), _first(flag=[True, False, None])),
        (_first().set_axis([7, 7, 9]), _first().set_axis([7, 7, 9])),
    ],
    ids=[
        "one row",
        "other order",
        "extra column",
        "whole numbers with a gap",
        "real numbers that are whole",
        "nothing but gaps",
        "categories",
        "booleans as text",
        "index",
    ],
)
def test_raw_rows_are_read_however_pandas_typed_them(
    frame: pd.DataFrame, same_as: pd.DataFrame, folder: Path
) -> None:
    from mlflow.pyfunc import PyFuncModel

    made, _ = pyfunc.read(folder / "predictor")
    saved = write_folder(folder.with_name("again"), made, table(), {})
    loaded = PyFuncModel(saved, made)
    predicted = loaded.predict(frame)
    pd.testing.assert_frame_equal(predicted, made.predict(same_as))
    assert list(predicted.index) == list(frame.index)


def test_a_missing_column_is_named(sqlite_store: Store) -> None:
    import mlflow

    logged = log(sqlite_store, predictor(["no", "yes"]))
    loaded = mlflow.pyfunc.load_model(logged.location)
    with pytest.raises(mlflow.MlflowException, match="whole"):
        loaded.predict(table().drop(columns="whole"))


def test_what_mlflow_says_of_a_model(sqlite_store: Store) -> None:
    from mlflow.models import Model

    logged = log(sqlite_store, predictor([3, 7]))
    read = Model.load(logged.location)
    assert read.signature.inputs.input_names() == list(table())
    outputs = read.signature.outputs.to_dict()
    assert [(o["name"], o["type"]) for o in outputs] == [
        ("label", "long"),
        ("probability_3", "double"),
        ("probability_7", "double"),
    ]
    assert read.metadata["columns"]["text"] == "categorical"
    assert len(read.load_input_example(logged.location)) == 5
    assert set(read.flavors) == {"python_function", "pytorch"}
    lines = (Path(logged.location) / "requirements.txt").read_text().splitlines()
    assert {line.split("==")[0] for line in lines} == set(REQUIREMENTS)
    assert not any("+" in line for line in lines)


def test_a_model_holds_no_pickle(sqlite_store: Store) -> None:
    from mlflow.pytorch import _validate_pt2_archive_is_pickle_free

    logged = log(sqlite_store, predictor(["no", "yes"]))
    names = {path.suffix for path in Path(logged.location).rglob("*") if path.is_file()}
    assert names <= {"", ".json", ".yaml", ".txt", ".py", ".pt2", ".safetensors"}
    _validate_pt2_archive_is_pickle_free(str(Path(logged.location) / "data" / "model.pt2"))


def test_a_model_loads_where_this_package_is_not_installed(
    sqlite_store: Store, python_elsewhere: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    made = predictor(["no", "yes"])
    logged = log(sqlite_store, made)
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    table().to_json("rows.json")
    code = (
        "import sys, mlflow, pandas as pd\n"
        "rows = pd.read_json('rows.json')\n"
        "print(mlflow.pyfunc.load_model(sys.argv[1]).predict(rows).to_json())\n"
        "print(mlflow.pytorch.load_model(sys.argv[1]) is not None)\n"
        "import mlops\n"
        "print(mlops.__file__)\n"
        "print(*(name for name in sys.modules if name.partition('.')[0] == 'mlops'))\n"
    )
    done = python_elsewhere(code, logged.location, repository=False)
    assert done.returncode == 0, done.stderr
    predicted, network, origin, modules = done.stdout.splitlines()
    assert Path(origin).is_relative_to(logged.location)
    # All that it has with it is needed, but for how a task is learned, which it can tell.
    carried = modules_needed("mlops.tracking.pyfunc", Path(pyfunc.__file__).parents[2])
    assert len(carried) > 20
    names = (path.with_suffix("").as_posix().removesuffix("/__init__") for path in carried)
    learning = {f"mlops.nn.tasks.{name}" for name in ("counts", "cross_entropy")}
    assert set(modules.split()) == {name.replace("/", ".") for name in names} - learning
    assert network == "True"
    expected = json.loads(made.predict(pd.read_json("rows.json")).to_json())
    assert json.loads(predicted)["label"] == expected["label"]


def test_a_model_that_cannot_be_stored_is_marked_as_failed(sqlite_store: Store) -> None:
    # The folder of artifacts is a file.
    Path(sqlite_store.artifact_location).parent.mkdir()
    Path(sqlite_store.artifact_location).write_text("in the way")
    with pytest.raises(TrackingError, match=r"the model must be stored in .*mlruns"):
        log(sqlite_store, predictor(["no", "yes"]))
    [entry] = sqlite_store.client.search_logged_models([sqlite_store.experiment_id])
    assert entry.status == "FAILED"


def test_the_network_is_left_as_it_was(sqlite_store: Store) -> None:
    made = predictor(["no", "yes"])
    made.mlp.train()
    logged = log(sqlite_store, made)
    assert made.mlp.training
    read, _ = pyfunc.read(Path(logged.location) / "predictor")
    assert not read.mlp.training


def test_checksums_hold_for_an_unchanged_model(folder: Path) -> None:
    sha256 = checksums.write_checksums(folder)
    (folder / "code" / "__pycache__").mkdir()
    (folder / "code" / "__pycache__" / "x.pyc").write_text("a loader's")
    (folder / "registered_model_meta").write_text("MLflow's")
    checksums.verify(folder, sha256)


def tamper(folder: Path, how: str) -> None:
    weights = folder / "predictor" / "weights.safetensors"
    if how == "changed":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif how == "missing":
        weights.unlink()
    elif how == "added":
        (folder / "data" / "model.pth").write_bytes(b"a pickle")
    elif how == "linked":
        (folder / "predictor" / "more").symlink_to("/")
    elif how == "listing":
        (folder / "checksums.json").write_text("{}")
    elif how == "no listing":
        (folder / "checksums.json").unlink()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("changed", "1 changed.*predictor/weights.safetensors"),
        ("missing", "1 changed.*predictor/weights.safetensors"),
        ("added", "1 changed.*data/model.pth"),
        ("linked", "1 changed.*predictor/more"),
        ("listing", "got other ones"),
        ("no listing", "got none"),
    ],
)
def test_a_changed_model_is_refused(how: str, reason: str, folder: Path) -> None:
    sha256 = checksums.write_checksums(folder)
    tamper(folder, how)
    with pytest.raises(TrackingError, match=reason):
        checksums.verify(folder, sha256)


def test_a_model_without_recorded_checksums_is_refused(folder: Path) -> None:
    checksums.write_checksums(folder)
    with pytest.raises(TrackingError, match="got none"):
        checksums.verify(folder, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"format": 99}, "format 2, got 99"), ({"classes": ["a", "b", "c"]}, "must fit")],
)
def test_a_description_that_does_not_fit_is_refused(
    change: dict[str, Any], reason: str, folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder / "predictor", tmp_path / "copy")
    description = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**description, **change}))
    with pytest.raises(TrackingError, match=reason):
        pyfunc.read(copy)
