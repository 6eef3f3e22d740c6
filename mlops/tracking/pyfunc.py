"""A trained model in a folder, without pickle, and the predictor read back from it.

    model.json            hyperparameters, preprocessing, task, target
    weights.safetensors   the weights, as `MLP.state_dict()` has them
    card.json             what is to be known of it (`mlops.tracking.models.card`)

MLflow's `python_function` flavor names this module as its loader. It needs MLflow for nothing, so a
server may use it alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.errors import TrackingError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from mlops.data.columns.features import FeatureEncoder
    from mlops.nn.mlp import MLP
    from mlops.nn.tasks.task import Task

FORMAT = 2
DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"
CARD = "card.json"


@dataclass(frozen=True, eq=False)
class Predictor:
    """Raw rows in, answers out.

    Attributes:
        mlp: The network, on the CPU, in evaluation mode.
        encoder: The fitted preprocessing.
        task: What is predicted.
        target_name: The column that is predicted.
        hyperparameters: The configuration it was trained with.
        training_columns: All columns of the table it was trained on, the target and those left out
            too; empty where that is not on record.
    """

    mlp: MLP
    encoder: FeatureEncoder
    task: Task
    target_name: str
    hyperparameters: Hyperparameters
    training_columns: tuple[str, ...] = ()

    def probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """Returns the predictions of raw rows: [N, C] float64, the probability of each class.

        Raises:
            TableError: A column is missing, or a cell cannot be read.
        """
        import torch

        with torch.inference_mode():
            outputs = self.mlp(torch.from_numpy(self.encoder.transform(frame)))
            return self.task.predictions_of_tensor(outputs)

    def predict(self, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Returns the columns of the task: `label` and `probability_<class>` for each class.

        Args:
            model_input: Raw rows: the columns of the training table, in any order; others are
                ignored.
            params: Not used; MLflow passes it.

        Raises:
            TableError: A column is missing, or a cell cannot be read.
        """
        import pandas as pd

        predictions = self.probabilities(model_input)
        answer, *names = self.task.columns
        answers = self.task.answer_column(predictions, pd.Series)
        columns = {answer: answers.set_axis(model_input.index)}
        for name, column in zip(names, predictions.T, strict=True):
            columns[name] = pd.Series(column, index=model_input.index)
        return pd.DataFrame(columns)


def write(folder: Path, predictor: Predictor, card: Mapping[str, Any]) -> None:
    """Writes a predictor's files into a new folder."""
    from safetensors.torch import save

    folder.mkdir()
    description = {
        "format": FORMAT,
        "hyperparameters": predictor.hyperparameters.to_dict(),
        "preprocessing": predictor.encoder.to_json(),
        **predictor.task.to_json(),
        "target": predictor.target_name,
        "training_columns": predictor.training_columns,
    }
    for name, values in ((DESCRIPTION, description), (CARD, card)):
        # In ASCII: a name or a level may be of letters that no other encoding has.
        text = json.dumps(values, indent=1, allow_nan=False)
        (folder / name).write_text(text, encoding="utf-8")
    weights = {name: tensor.contiguous() for name, tensor in predictor.mlp.state_dict().items()}
    # Not save_file: its files are readable by their owner alone.
    (folder / WEIGHTS).write_bytes(save(weights))


def read(folder: Path) -> tuple[Predictor, dict[str, Any]]:
    """Reads a predictor and its card, as `write` wrote them; nothing in the folder is executed.

    Raises:
        TrackingError: The files are of another format or do not belong together.
    """
    from safetensors.torch import load_file

    from mlops.data.columns.features import FeatureEncoder
    from mlops.nn.mlp import MLP
    from mlops.nn.tasks.task import task_of

    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if description.get("format") != FORMAT:
        raise TrackingError(
            f"a model must be of format {FORMAT}, got {description.get('format')!r}; use the "
            "version of this package that wrote it, or train it again"
        )
    hyperparameters = Hyperparameters.from_dict(description["hyperparameters"])
    encoder = FeatureEncoder.from_json(description["preprocessing"])
    try:
        task = task_of(description)
    except ValueError as error:
        raise TrackingError(str(error)) from error
    mlp = MLP.of(hyperparameters, encoder.width, task.n_outputs)
    try:
        mlp.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise TrackingError(
            f"a model's weights must fit its description, got {str(error).splitlines()[0]}; the "
            "model is damaged, train it again"
        ) from error
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    columns = tuple(description.get("training_columns", ()))
    predictor = Predictor(
        mlp.eval(), encoder, task, description["target"], hyperparameters, columns
    )
    return predictor, card


def _load_pyfunc(path: str) -> Predictor:
    """Loads the model for `mlflow.pyfunc.load_model`."""
    return read(Path(path))[0]
