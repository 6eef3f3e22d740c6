"""The best trial as a model, scored once on every part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.data.columns.features import FeatureEncoder
from mlops.data.table import Part, Parts
from mlops.nn.mlp import MLP
from mlops.nn.tasks.task import Task
from mlops.tracking.pyfunc import Predictor

# Rows encoded at a time, so that scoring a large table needs no second copy of it.
BLOCK_ROWS = 65_536


def build(
    params: Mapping[str, Any],
    weights: bytes,
    encoder: FeatureEncoder,
    task: Task,
    target_name: str,
) -> Predictor:
    """Makes a predictor of a trial's weights.

    Args:
        params: The trial's hyperparameters.
        weights: Safetensors bytes of `MLP.state_dict()`.
        encoder: The preprocessing it was trained with.
        task: What is predicted.
        target_name: The column it predicts.
    """
    hyperparameters = Hyperparameters.from_dict(params)
    mlp = MLP.of(hyperparameters, encoder.width, task.n_outputs)
    mlp.load_state_dict(load(weights))
    return Predictor(mlp.eval(), encoder, task, target_name, hyperparameters)


def score(predictor: Predictor, parts: Parts) -> tuple[dict[str, float], np.ndarray]:
    """Scores a model on the training, validation and test parts, dropout off.

    Returns:
        `<part>_loss`, `<part>_accuracy` and `<part>_f1` for each part, and the confusion matrix on
        the test part: [C, C] int64, actual by predicted.
    """
    metrics: dict[str, float] = {}
    confusion = torch.zeros(0)
    for name, part in (("train", parts.train), ("val", parts.validation), ("test", parts.test)):
        scores, confusion = score_part(predictor, part)
        metrics |= {f"{name}_{score}": value for score, value in scores.items()}
    return metrics, confusion.numpy()


def with_columns_of(predictor: Predictor, part: Part) -> Part:
    """Gives a part a column of gaps for each column of a model that its table does not have.

    So a model of before can be asked about rows of which a column is left out now: it has to do
    without it, as its successor does.
    """
    absent = [column.name for column in predictor.encoder.columns if column.name not in part.table]
    if not absent:
        return part
    gaps = np.full(len(part.table), None, dtype=object)
    blank = pd.DataFrame(dict.fromkeys(absent, gaps), index=part.table.index, dtype=object)
    return replace(part, table=pd.concat([part.table, blank], axis=1))


@torch.inference_mode()
def score_part(predictor: Predictor, part: Part) -> tuple[dict[str, float], torch.Tensor]:
    """Scores a model on one part.

    Returns:
        `loss`, `accuracy` and `f1`, and the confusion matrix: [C, C] int64, actual by predicted.
    """
    scores = predictor.task.model_scores()
    for first in range(0, len(part), BLOCK_ROWS):
        rows = part.rows[first : first + BLOCK_ROWS]
        y = torch.from_numpy(part.target[first : first + BLOCK_ROWS])
        outputs = predictor.mlp(torch.from_numpy(predictor.encoder.transform(part.table, rows)))
        scores.add(outputs, y)
    return scores.means(), scores.confusion
