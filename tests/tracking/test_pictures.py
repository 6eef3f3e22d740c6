from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops.tracking.pictures import draw_confusion_matrix, log_confusion_matrix
from mlops.tracking.store import Store

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
