"""Tables of any width and names of any letters: nothing that was trained is lost at the record."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from study_harness import read

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.data.dataset import fit_encoder
from mlops.data.notes import Note
from mlops.data.table import Part, Parts
from mlops.nn.mlp import MLP
from mlops.nn.tasks.classification import Classification
from mlops.settings.study import TuneSettings
from mlops.tracking.models import registry
from mlops.tracking.pyfunc import Predictor
from mlops.tracking.store.store import Store
from mlops.tracking.study.dataset import LONGEST_SCHEMA, log_dataset, notes_on_record
from mlops.tracking.study.spool import Spool
from mlops.tracking.study.study_run import StudyRun

PACKING = {"pack_size": 2, "packs_in_flight": 3}
ODD_NAMES = [
    " ", "\0", "\n", "\u2028", "\x85", "ü" * 300, "😀" * 300, "'\"`{}[]%", "x" * 100_000,
    "label", "probability_no", "a: b", "- a", "# a", "null", "true", "1e5", "~", "/etc", "..", "$x",
]  # fmt: skip
NAMES = {
    "long": [f"{'x' * 95}{i:05d}" for i in range(12_000)],
    "short": [f"c{i}" for i in range(16_000)],
    "odd": ODD_NAMES,
}


def wide_parts(
    names: Sequence[str], classes: Sequence[Any] = ("no", "yes"), target: str = "y"
) -> Parts:
    rows = np.arange(max(12, len(classes)))
    cells = np.random.default_rng(0).normal(size=(len(rows), len(names)))
    table, readings = read(pd.DataFrame(cells, columns=list(names)))
    part = Part(table, rows, rows % len(classes))
    note = Note("a_note", "of the table", example="secret")
    digest = uuid.uuid4().hex[:16]  # of a digest a store keeps one data set
    return Parts(
        part, part, part, list(classes), target, "wide", "wide.parquet", digest, readings, (note,),
        (*names, target, "left out"),
    )  # fmt: skip


def predictor_of(parts: Parts) -> Predictor:
    encoder = fit_encoder(parts)
    hyperparameters = Hyperparameters(hidden_dims=(4,))
    mlp = MLP.of(hyperparameters, encoder.width, len(parts.classes))
    mlp.reset(torch.Generator().manual_seed(0))
    return Predictor(
        mlp.eval(), encoder, Classification(parts.classes), parts.target_name, hyperparameters
    )


def record(store: Store, parts: Parts, folder: Path) -> tuple[StudyRun, dict[str, Any]]:
    """Records a study as the job does, from its settings to its registered model."""
    settings = TuneSettings().model_dump()
    settings["data"]["columns"] = dict.fromkeys(parts.columns, "keep")
    spool = Spool(folder / "spool")
    name = f"wide {parts.digest}"
    run = StudyRun.create(store, name, settings, parts, PACKING, 20, spool)
    predictor = predictor_of(parts)
    best = {"trial": 0, "params": predictor.hyperparameters.to_dict(), "best_epoch": 1}
    confusion = np.eye(len(parts.classes), dtype=np.int64)
    logged = run.log_best(best, predictor, {"test_accuracy": 0.5}, confusion, "mlp")
    run.end()
    spool.close(sent=False)
    return run, logged


def assert_recorded(store: Store, parts: Parts, run: StudyRun, logged: dict[str, Any]) -> None:
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    names = list(parts.train.table)
    found = registry.load_version(store, "mlp", logged["model"]["version"])
    assert [column.name for column in found.predictor.encoder.columns] == names
    assert found.predictor.training_columns == parts.columns
    assert found.predictor.task.classes == parts.classes
    assert list(found.card["columns"]) == names
    version = str(logged["model"]["version"])
    place = store.client.get_model_version_download_uri("mlp", version)
    folder = download_artifacts(artifact_uri=place, tracking_uri=store.uri)
    model = Model.load(folder)
    assert model.signature.inputs.input_names() == names
    assert model.metadata["columns"].keys() == set(names)
    content = store.read_bytes(run.run_id, "notes.json")
    assert content is not None
    assert json.loads(content) == [note.to_json() for note in parts.notes]
    assert b"secret" not in content
    assert store.client.get_run(run.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("names", NAMES.values(), ids=list(NAMES))
def test_the_dataset_names_as_many_columns_as_mlflow_takes(names: list[str], store: Store) -> None:
    parts = wide_parts(names)
    run_id = store.client.create_run(store.experiment_id).info.run_id
    log_dataset(store, run_id, parts)
    [given] = store.client.get_run(run_id).inputs.dataset_inputs
    described = json.loads(given.dataset.schema)["mlflow_colspec"]
    profile = json.loads(given.dataset.profile)
    assert len(given.dataset.schema) <= LONGEST_SCHEMA
    assert [column["name"] for column in described] == names[: len(described)]
    assert profile["columns_in_schema"] == len(described)
    assert profile["columns"] == len(names)
    assert len(described) >= min(len(names), 8)
    [note] = notes_on_record(parts)
    assert f"its first {len(described):,} columns" in note.text
    assert f"of {len(names):,};" in note.text


def test_all_columns_of_an_ordinary_table_are_named(sqlite_store: Store) -> None:
    table = pd.DataFrame(
        {
            "whole": [1, 2],
            "real": [0.5, None],
            "text": ["a", "b"],
            "flag": [True, False],
            "when": pd.to_datetime(["2024-01-01", None]),
        }
    )
    part = Part(table, np.arange(2), np.array([0, 1]))
    parts = replace(wide_parts(["a"]), train=part)
    run_id = sqlite_store.client.create_run(sqlite_store.experiment_id).info.run_id
    log_dataset(sqlite_store, run_id, parts)
    [given] = sqlite_store.client.get_run(run_id).inputs.dataset_inputs
    described = json.loads(given.dataset.schema)["mlflow_colspec"]
    assert [(column["name"], column["type"]) for column in described] == [
        ("whole", "long"),
        ("real", "double"),
        ("text", "string"),
        ("flag", "boolean"),
        ("when", "datetime"),
    ]
    assert notes_on_record(parts) == []


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("table.csv", "local"),
        ("sklearn:digits", "sklearn"),
        ("s3://bucket/table.csv", "s3"),
        ("a folder of a long name, 2024/01/01 10:00/table.csv", "local"),
        ("synthetic:class_balance=" + "0.001," * 100_000, "synthetic"),
        ("ü" * 100_000, "local"),
    ],
)
def test_a_source_of_any_length_is_recorded(source: str, kind: str, store: Store) -> None:
    parts = replace(wide_parts(["a"]), source=source, name=source, target_name=source)
    run_id = store.client.create_run(store.experiment_id).info.run_id
    log_dataset(store, run_id, parts)
    [given] = store.client.get_run(run_id).inputs.dataset_inputs
    assert given.dataset.source_type == kind
    uri = json.loads(given.dataset.source)["uri"]
    assert source.startswith(uri)
    assert len(uri) == min(len(source), 5000)


def test_names_of_any_letters_are_recorded(store: Store, tmp_path: Path) -> None:
    parts = wide_parts(ODD_NAMES, classes=["", "no", *ODD_NAMES], target="\0😀" * 10_000)
    assert_recorded(store, parts, *record(store, parts, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("width", ["long", "short"])
def test_tables_of_thousands_of_columns_are_recorded(
    width: str, store: Store, tmp_path: Path
) -> None:
    parts = wide_parts(NAMES[width])
    assert_recorded(store, parts, *record(store, parts, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("n_classes", [1000, 3000])
def test_thousands_of_classes_are_recorded(n_classes: int, store: Store, tmp_path: Path) -> None:
    classes = [f"a class of a long name, {i:04d} 😀" for i in range(n_classes)]
    parts = wide_parts(["a", "b"], classes)
    run, logged = record(store, parts, tmp_path)
    assert_recorded(store, parts, run, logged)
    content = store.read_bytes(run.run_id, "confusion_matrix.json")
    assert content is not None
    document = json.loads(content)
    assert document["classes"] == classes
    codes = [note.code for note in notes_on_record(parts)]
    if n_classes == 1000:
        assert document["matrix"] == np.eye(n_classes, dtype=np.int64).tolist()
        assert codes == []
    else:
        assert document["counts"] == [[i, i, 1] for i in range(n_classes)]
        assert codes == ["matrix_shortened"]


def test_dates_are_text_in_what_is_recorded_of_a_model(sqlite_store: Store, tmp_path: Path) -> None:
    from mlflow.models import Model

    when = pd.date_range("2024-01-01T10:00", periods=24, freq="31h").to_series(index=range(24))
    lasted = pd.to_timedelta(np.arange(24) * 1.5, unit="s")
    table, readings = read(pd.DataFrame({"when": when, "lasted": lasted}))
    part = Part(table, np.arange(24), np.arange(24) % 2)
    parts = replace(wide_parts(["a"]), train=part, validation=part, test=part, readings=readings)
    _, logged = record(sqlite_store, replace(parts, columns=("when", "lasted", "y")), tmp_path)
    found = registry.load_version(sqlite_store, "mlp", logged["model"]["version"])
    assert found.card["sample"]["rows"][0]["when"] == "2024-01-01T10:00:00"
    place = sqlite_store.client.get_model_version_download_uri("mlp", "1")
    model = Model.load(place)
    assert model.metadata["columns"] == {"when": "date", "lasted": "numeric"}
    example = model.load_input_example(place)
    assert example["when"][0] == "2024-01-01T10:00:00"
    assert list(example["lasted"][:3]) == [0.0, 1.5, 3.0]
    np.testing.assert_array_equal(
        found.predictor.probabilities(example), found.predictor.probabilities(table.head(5))
    )
