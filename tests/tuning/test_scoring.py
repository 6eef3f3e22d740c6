"""A model of before, asked about rows that are read otherwise now."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.data.columns.features import FeatureEncoder
from mlops.data.table import Part
from mlops.nn.mlp import MLP
from mlops.nn.tasks.classification import Classification
from mlops.tracking.pyfunc import Predictor
from mlops.tuning.scoring import score_part, with_columns_of

ROWS = pd.DataFrame({"x": [0.0, 1.0, 2.0, 4.0], "town": ["a", "b", None, "a"], "id": list("pqrs")})


def predictor(rows: pd.DataFrame) -> Predictor:
    encoder = FeatureEncoder.fit(rows)
    hyperparameters = Hyperparameters(hidden_dims=(4,))
    mlp = MLP.of(hyperparameters, encoder.width, 2).reset(torch.Generator().manual_seed(0)).eval()
    return Predictor(mlp, encoder, Classification(["no", "yes"]), "y", hyperparameters)


def part(table: pd.DataFrame) -> Part:
    return Part(table, np.array([1, 3]), np.array([0, 1]))


def test_a_column_that_is_left_out_now_is_a_column_of_gaps_to_a_model_of_before() -> None:
    old = predictor(ROWS)
    for left_out in (["id"], ["x"], ["x", "town", "id"]):
        rows = part(ROWS.drop(columns=left_out))
        gaps = part(ROWS.assign(**dict.fromkeys(left_out)))
        scores, _ = score_part(old, with_columns_of(old, rows))
        assert scores == score_part(old, gaps)[0]


def test_a_part_that_has_all_columns_is_not_copied() -> None:
    rows = part(ROWS)
    assert with_columns_of(predictor(ROWS[["x"]]), rows) is rows
