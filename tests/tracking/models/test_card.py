from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
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
from mlops.tracking.models.card import json_rows, make_card
from mlops.tracking.pyfunc import Predictor

TABLE = pd.DataFrame(
    {
        "x": [0.5, np.nan, 2.0, 4.0, 1e9],
        "n": [3, 1, 2, 2, 9],
        "town": ["Köln", "Köln", "Ulm", None, "Kiel"],
        "flag": [True, False, False, False, True],
    }
)


def parts() -> Parts:
    table, readings = read(TABLE)
    train = Part(table, np.arange(4), np.array([0, 1, 0, 1]))
    test = Part(table, np.array([1, 4]), np.array([1, 0]))
    return Parts(train, train, test, ["no", "yes"], "y", "towns", "towns.csv", "0123", readings, ())


def test_a_card_tells_what_the_training_rows_held() -> None:
    given = parts()
    encoder = fit_encoder(given)
    hyperparameters = Hyperparameters(hidden_dims=(4,))
    mlp = MLP.of(hyperparameters, encoder.width, 2).reset(torch.Generator().manual_seed(0)).eval()
    predictor = Predictor(mlp, encoder, Classification(given.classes), "y", hyperparameters)
    card = make_card("one", given, predictor, {"test_accuracy": 0.5}, np.eye(2, dtype=np.int64))
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert card["columns"] == {
        "x": {"kind": "numeric", "min": 0.5, "max": 4.0, "median": 2.0, "whole": False,
              "gaps": True},
        "n": {"kind": "numeric", "min": 1.0, "max": 3.0, "median": 2.0, "whole": True,
              "gaps": False},
        "town": {"kind": "categorical", "levels": ["Köln", "Ulm"], "typical": "Köln",
                 "gaps": True},
        "flag": {"kind": "categorical", "levels": ["False", "True"], "typical": "False",
                 "gaps": False},
    }  # fmt: skip
    assert card["data"] == {"name": "towns", "source": "towns.csv", "digest": "0123"}
    assert card["confusion_matrix"] == [[1, 0], [0, 1]]
    sample = card["sample"]
    assert sample["rows"] == [
        {"x": None, "n": 1, "town": "Köln", "flag": "False"},
        {"x": 1e9, "n": 9, "town": "Kiel", "flag": "True"},
    ]
    predicted = predictor.predict(pd.DataFrame(sample["rows"]))
    assert list(predicted["label"]) == sample["labels"]
    np.testing.assert_allclose(predicted.iloc[:, 1:], sample["probabilities"], atol=1e-12)


def test_a_card_has_the_notes_of_the_table_without_its_cells() -> None:
    note = Note("odd_cells", "2 cell(s) are gaps now", "x", 2, 7, "secret", True)
    given = replace(parts(), notes=(note,))
    encoder = fit_encoder(given)
    hyperparameters = Hyperparameters(hidden_dims=(4,))
    mlp = MLP.of(hyperparameters, encoder.width, 2).reset(torch.Generator().manual_seed(0)).eval()
    predictor = Predictor(mlp, encoder, Classification(given.classes), "y", hyperparameters)
    card = make_card("one", given, predictor, {}, np.eye(2, dtype=np.int64))
    assert card["notes"] == [note.to_json()]
    assert "secret" not in json.dumps(card)


UTC_PLUS_2 = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pd.to_datetime(["2024-01-01 10:00", None]), "2024-01-01T10:00:00"),
        (pd.to_datetime(["2024-01-01 10:00:00.25", None]), "2024-01-01T10:00:00.250000"),
        (pd.to_datetime(["2024-01-01", None]), "2024-01-01T00:00:00"),
        (pd.to_datetime(["2024-01-01 10:00", None]).as_unit("s"), "2024-01-01T10:00:00"),
        (pd.to_datetime(["2024-01-01 10:00+02:00", None]), "2024-01-01T08:00:00"),
        ([pd.Timestamp(2024, 1, 1, 10), None], "2024-01-01T10:00:00"),
        ([datetime(2024, 1, 1, 10, tzinfo=UTC_PLUS_2), None], "2024-01-01T08:00:00"),
        ([datetime(2024, 1, 1, 10), pd.NaT], "2024-01-01T10:00:00"),
        ([date(2024, 1, 1), None], "2024-01-01T00:00:00"),
        ([np.datetime64("2024-01-01T10:00"), None], "2024-01-01T10:00:00"),
        (pd.to_timedelta(["1 day 00:00:01.5", None]), 86401.5),
        ([timedelta(minutes=2), None], 120.0),
        ([np.timedelta64(3, "s"), pd.NaT], 3.0),
        ([np.inf, None], None),
        (np.array([0.5, np.nan], dtype=np.float32), 0.5),
    ],
)
def test_times_become_text_and_durations_seconds(cells: Any, expected: Any) -> None:
    """As they are, and among objects of several types."""
    typed = pd.DataFrame({"x": cells})
    for frame in (typed, typed.astype(object), pd.DataFrame({"x": [*cells, "a"]}, dtype=object)):
        rows = json_rows(frame)
        assert json.loads(json.dumps(rows, allow_nan=False)) == rows
        assert [row["x"] for row in rows[:2]] == [expected, None]


def test_cells_of_every_type_become_json() -> None:
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None], dtype="Int64"),
            "decimal": [Decimal("0.5"), None],
            "text": pd.array(["a", None], dtype="string"),
            "category": pd.Categorical(["b", None]),
        }
    )
    first, gaps = json_rows(frame)
    assert first == {"whole": 1, "decimal": 0.5, "text": "a", "category": "b"}
    assert set(gaps.values()) == {None}
