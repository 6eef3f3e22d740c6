"""A registered model, made ready to answer requests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mlops.errors import TrackingError
from mlops.serving.champion.network import Network
from mlops.serving.rows.cells import Cells
from mlops.serving.rows.columns import Columns
from mlops.serving.rows.reading import read_cells

if TYPE_CHECKING:
    import pandas as pd

    from mlops.data.columns.features import FeatureEncoder
    from mlops.nn.tasks.task import Task
    from mlops.tracking.models.registry import RegisteredModel

TOLERANCE = 1e-5
# What a request costs beside the products of its rows with the weights, in weights: one takes
# 0.08 ns, a cell 0.1 µs to read, a probability 0.2 µs to write as JSON, and a row 1 µs.
CELL_WEIGHTS = 1_000
OUTPUT_WEIGHTS = 2_500
ROW_WEIGHTS = 10_000
WEIGHTS_AT_ONCE = 25_000_000  # 2 ms
RETRAIN = "train and register it again with `python -m ray_jobs.tune`"


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of a registered model: everything an answer is made of.

    Immutable, so whoever holds it may use it while another version takes its place.

    Attributes:
        name: The registered model.
        version: Its version.
        run_id: The study's run.
        target: The column that is predicted.
        task: What is predicted.
        encoder: The preprocessing.
        network: The layers.
        card: What is recorded of the model; see `mlops.tracking.models.registry.RegisteredModel`.
        n_weights: Weights of the network.
        training_columns: All columns of the table it was trained on, as far as that is on record.
    """

    name: str
    version: int
    run_id: str
    target: str
    task: Task
    encoder: FeatureEncoder
    network: Network
    card: dict[str, Any]
    n_weights: int
    training_columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, registered: RegisteredModel) -> ServedModel:
        """Takes a registered model's weights out of torch.

        Raises:
            TrackingError: Its card is not about this model.
        """
        predictor = registered.predictor
        state = {name: tensor.numpy() for name, tensor in predictor.mlp.state_dict().items()}
        model = cls(
            registered.name,
            registered.version,
            registered.run_id,
            predictor.target_name,
            predictor.task,
            predictor.encoder,
            Network(state, predictor.hyperparameters.activation, predictor.task.predictions),
            registered.card,
            sum(array.size for array in state.values()),
            predictor.training_columns,
        )
        described = registered.card.get("columns", {})
        if set(described) != model.columns.known:
            raise TrackingError(
                "a model's card must describe the columns of the model, got one of "
                f"{len(described)} column(s) for {len(model.columns.names)}; {RETRAIN}"
            )
        return model

    @cached_property
    def columns(self) -> Columns:
        """The names of the columns."""
        return Columns(self.encoder, (self.target, *self.training_columns))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What every answer says of its model."""
        return {"name": self.name, "version": self.version, "run_id": self.run_id}

    @cached_property
    def identity_json(self) -> msgspec.Raw:
        """`identity`, written once for all answers."""
        return msgspec.Raw(msgspec.json.encode(self.identity))

    @cached_property
    def version_header(self) -> tuple[bytes, bytes]:
        """The header that says which version gave an answer."""
        return b"x-model-version", str(self.version).encode()

    @cached_property
    def rows_at_once(self) -> int:
        """Rows that are little work; the answers to more would keep others waiting."""
        beside = OUTPUT_WEIGHTS * self.task.n_outputs + CELL_WEIGHTS * len(self.columns.names)
        return WEIGHTS_AT_ONCE // (self.n_weights + beside + ROW_WEIGHTS)

    def probabilities(self, cells: Cells) -> np.ndarray:
        """Returns the predictions, [N, C] float64: of each class the probability.

        `cells` are used up.
        """
        return self.network.probabilities(
            self.encoder.encode(cells.numbers, cells.texts, cells.tally, cells.times)
        )

    def probabilities_of(self, frame: pd.DataFrame) -> np.ndarray:
        """Returns the same for raw rows of a table.

        Raises:
            TableError: A column is missing, or a cell cannot be read.
        """
        return self.network.probabilities(self.encoder.transform(frame))

    def check_sample(self) -> None:
        """Asks for the answers that were recorded when the model was registered; warms up as well.

        The rows go the way of a request's rows.

        Raises:
            TrackingError: There are none, or the answers are others.
        """
        sample = self.card.get("sample") or {}
        rows = sample.get("rows") or []
        if not rows:
            raise TrackingError(
                f"a model must carry a sample of rows with their answers, got none; {RETRAIN}"
            )
        cells = read_cells(self.columns, self.columns.transposed(rows), "lenient")
        probabilities = self.probabilities(cells)
        recorded = np.asarray(sample["probabilities"], dtype=np.float64)
        off = np.inf
        if recorded.shape == probabilities.shape:
            off = float(np.abs(recorded - probabilities).max())
        # Written so that NaN fails as well.
        if not off <= TOLERANCE:
            raise TrackingError(
                f"a model must give the probabilities recorded with it to {TOLERANCE:g}, got "
                f"{off:.2g} off; {RETRAIN}"
            )
        if self.task.answers(probabilities) != list(sample["labels"]):
            raise TrackingError(
                f"a model must give the labels recorded with it, got others; {RETRAIN}"
            )

    @cached_property
    def typical_row(self) -> dict[str, Any]:
        """A row of medians, of numbers and of dates, and of the most frequent categories."""
        described = self.card["columns"]
        return {name: _typical(described[name]) for name in self.columns.names}


def _typical(column: dict[str, Any]) -> Any:
    if column["kind"] != "numeric":
        return column["typical"]
    median = column["median"]
    return int(median) if column.get("whole") and float(median).is_integer() else median
