from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops.tracking.models.card import MOST_WHOLE
from mlops.tracking.store.store import Store
from mlops.tracking.study.pictures import (
    MOST_NAMED,
    draw_confusion_matrix,
    log_confusion_matrix,
)

LETTERS = [chr(ord("A") + i) for i in range(26)]


def test_a_confusion_matrix_is_put_on_the_run(store: Store, tmp_path: Path) -> None:
    run_id = store.client.create_run(store.experiment_id).info.run_id
    matrix = np.array([[5, 1], [0, 7]])
    log_confusion_matrix(store, run_id, matrix, [3, "$x_$"])
    names = {file.path for file in store.client.list_artifacts(run_id)}
    assert names == {"confusion_matrix.json", "confusion_matrix.png"}
    document = json.loads(
        Path(store.client.download_artifacts(run_id, "confusion_matrix.json")).read_text()
    )
    assert document == {
        "classes": [3, "$x_$"],
        "matrix": [[5, 1], [0, 7]],
        "rows": "actual",
        "columns": "predicted",
    }
    header = Path(store.client.download_artifacts(run_id, "confusion_matrix.png")).read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(struct.unpack(">II", header[16:24])) > 300


def test_of_very_many_classes_the_counts_that_are_not_0_are_kept(
    sqlite_store: Store, tmp_path: Path
) -> None:
    n_classes = 2 * MOST_WHOLE + 500
    rows = np.random.default_rng(0).integers(0, n_classes, (4000, 2))
    matrix = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(matrix, tuple(rows.T), 1)
    run_id = sqlite_store.client.create_run(sqlite_store.experiment_id).info.run_id
    log_confusion_matrix(sqlite_store, run_id, matrix, list(range(n_classes)))
    file = sqlite_store.client.download_artifacts(run_id, "confusion_matrix.json")
    document = json.loads(Path(file).read_text())
    assert document["classes"] == list(range(n_classes))
    again = np.zeros_like(matrix)
    for actual, predicted, count in document["counts"]:
        again[actual, predicted] = count
    assert (again == matrix).all()
    axes = draw_confusion_matrix(matrix, list(range(n_classes))).axes[0]
    (drawn,) = axes.images
    assert len(drawn.get_array()) <= MOST_WHOLE
    right = np.trace(matrix) / matrix.sum()
    assert axes.get_title() == f"4,000 rows, {right:.1%} right"
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == ["0", str(3 * math.ceil(n_classes / 3 / MOST_NAMED))]


@pytest.mark.parametrize(
    ("classes", "written"),
    [
        (["no", "yes"], 4),
        (LETTERS, 26),
        (list(range(100)), 0),
        (["a name much longer than any picture can show"] * 7, 7),
        (["$a$", "b$", "line\nbreak", "\\frac{"], 16),
    ],
    ids=["two", "letters", "hundred", "long", "strange"],
)
def test_any_number_and_kind_of_classes_can_be_drawn(
    classes: list[Any], written: int, tmp_path: Path
) -> None:
    matrix = np.diag(np.full(len(classes), 12_345))
    figure = draw_confusion_matrix(matrix, classes)
    figure.savefig(tmp_path / "picture.png")
    axes = figure.axes[0]
    assert len(axes.texts) == written
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert 0 < len(labels) <= 50
    assert max(map(len, labels)) <= 24


def test_a_class_without_rows_is_drawn() -> None:
    figure = draw_confusion_matrix(np.array([[0, 0], [2, 3]]), ["no", "yes"])
    assert figure.axes[0].get_title() == "5 rows, 60.0% right"
