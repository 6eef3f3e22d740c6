"""The one place that knows what classes are: predictions, answers, and whoever else decides."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import mlops
from mlops.nn.tasks.classification import Classification
from mlops.nn.tasks.metrics import METRICS, Metric
from mlops.nn.tasks.task import BY_NAME, task_of
from mlops.settings.study import TuneSettings

PREDICTIONS = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.1, 0.1, 0.8]])
CLASSES: list[list[Any]] = [["a", "b", "c"], [3, 1, 2], [0.5, 1.5, -1.0]]


@pytest.mark.parametrize("classes", CLASSES, ids=str)
@pytest.mark.parametrize("rows", [PREDICTIONS, PREDICTIONS[:1], PREDICTIONS[:0]], ids=len)
def test_answers_are_the_same_in_every_shape(classes: list[Any], rows: np.ndarray) -> None:
    task = Classification(classes)
    answers = task.answers(rows)
    # Of equal ones the first.
    assert answers == [classes[1], classes[0], classes[2]][: len(rows)]
    assert [type(answer) for answer in answers] == [type(classes[0])] * len(rows)
    assert task.answer_column(rows, pd.Series).tolist() == answers
    column = task.answer_column(rows, pa.array)
    assert (column.to_pylist(), column.type) == (answers, pa.array(classes).type)
    flat, nested = task.flat_objects(rows), task.objects(rows)
    assert [list(row) for row in flat] == [task.columns] * len(rows)
    assert [list(row.values()) for row in flat] == [
        [row["label"], *row["probabilities"].values()] for row in nested
    ]
    assert [row["label"] for row in nested] == answers
    names = [str(label) for label in classes]
    assert [list(row["probabilities"]) for row in nested] == [names] * len(rows)
    assert [list(row["probabilities"].values()) for row in nested] == rows.tolist()
    assert task.columns == ["label", *(f"probability_{name}" for name in names)]


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_predictions_are_those_of_torch(size: float) -> None:
    outputs = (np.random.default_rng(0).normal(size=(50, 4)) * size).astype(np.float32)
    task = Classification("abcd")
    found, by_torch = task.predictions(outputs), task.predictions_of_tensor(torch.tensor(outputs))
    np.testing.assert_allclose(found, by_torch, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("classes", CLASSES, ids=str)
def test_a_description_says_its_task_and_one_of_before_was_of_classes(classes: list[Any]) -> None:
    described = json.loads(json.dumps(Classification(classes).to_json()))
    assert described == {"task": "classification", "classes": classes}
    for description in (described, {"classes": classes}):
        task = task_of(description)
        assert (task.name, task.classes) == ("classification", classes)


def test_metrics_of_all_tasks_can_be_asked_for() -> None:
    asked = get_args(TuneSettings.model_fields["metric"].annotation)
    assert set(asked) == METRICS.keys()
    assert {f"val_{m.name}": m for task in BY_NAME.values() for m in task.metrics} == METRICS


@pytest.mark.parametrize(
    ("mode", "better", "worse"), [("max", 0.9, 0.8), ("min", 0.8, 0.9)], ids=["max", "min"]
)
def test_a_metric_knows_which_is_better(mode: str, better: float, worse: float) -> None:
    metric = Metric("any name, with loss or without", mode, 0.0)
    assert metric.is_better(better, worse)
    assert not metric.is_better(worse, better)
    assert not metric.is_better(better, better)
    assert not metric.is_better(float("nan"), worse)
    assert metric.reaches(better, better)
    assert metric.reaches(better, worse)
    assert not metric.reaches(worse, better)
    assert sorted([worse, better], key=metric.ascending) == [better, worse]


def test_nobody_else_decides() -> None:
    """What turns outputs into answers, or tells the better score, stands with the task."""
    root = Path(mlops.__path__[0])
    # A point of the search space, and an encoder's level: no answers.
    others = {"tuning/search/tpe.py"}
    found = set()
    for path in root.rglob("*.py"):
        place = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", getattr(node, "id", None))
            if name in ("argmax", "softmax", "log_softmax", "cross_entropy"):
                found.add(place)
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "endswith":
                ends = [str(getattr(arg, "value", "")) for arg in node.args]
                assert not {"loss", "_loss", "accuracy"} & set(ends), place
    assert {p for p in found if not p.startswith("nn/tasks/")} <= others
