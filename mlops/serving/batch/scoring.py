"""What is done to each block of a table: rows in, predictions out. No Ray here."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mlops.data.columns.arrow import pandas_frame
from mlops.data.notes import Tally
from mlops.errors import TableError
from mlops.serving.champion.network import Network

if TYPE_CHECKING:
    from mlops.data.columns.features import Column
    from mlops.tracking.pyfunc import Predictor

LABEL = "label"
TALLY = b"tally"  # in the metadata of a block's predictions


@dataclass(frozen=True)
class BadRow:
    """The first row of a block that cannot be scored.

    Attributes:
        row: Its position in the block.
        problems: What is wrong with it, one line for each column.
    """

    row: int
    problems: list[str]


class Scorer:
    """Scores blocks with a model; what a worker holds. Torch is not needed for it.

    Args:
        predictor: The model.

    Attributes:
        columns: The model's columns.
        schema: The task's columns: `label`, and `probability_<class>` for each class.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._encoder = predictor.encoder
        state = {name: tensor.numpy() for name, tensor in predictor.mlp.state_dict().items()}
        self._task = task = predictor.task
        self._network = Network(state, predictor.hyperparameters.activation, task.predictions)
        self.columns: Sequence[Column] = predictor.encoder.columns
        answers = task.answer_column(np.empty((0, task.n_outputs)), pa.array)
        answer, *names = task.columns
        self.schema = pa.schema([(answer, answers.type), *((name, pa.float64()) for name in names)])

    def check(self, names: Sequence[str]) -> None:
        """Checks that a table with columns of these names can be scored.

        Raises:
            TableError: A column is missing.
        """
        self._encoder.transform(pd.DataFrame(columns=list(names)))

    def __call__(self, rows: pa.Table) -> pa.Table | BadRow:
        """Scores a block that has the model's columns, in any order.

        Returns:
            What `Predictor.predict` returns, in `schema`, whose metadata has what `tally_of` reads;
            or the first row that it refuses.
        """
        frame = pandas_frame(rows)
        tally = Tally()
        try:
            codes = self._encoder.transform(frame, tally=tally)
        except TableError:
            return self._first_bad_row(frame)
        predictions = self._network.probabilities(codes)
        answers = self._task.answer_column(predictions, pa.array)
        schema = self.schema.with_metadata({TALLY: json.dumps(tally.to_json())})
        return pa.table([answers, *map(pa.array, predictions.T)], schema=schema)

    def _first_bad_row(self, frame: pd.DataFrame) -> BadRow:
        """Halves the rows until one is left: a row's code does not depend on the others."""
        first, last = 0, len(frame)
        while last - first > 1:
            middle = (first + last) // 2
            if self._problems(frame.iloc[first:middle]):
                last = middle
            else:
                first = middle
        return BadRow(first, self._problems(frame.iloc[first:last]))

    def _problems(self, frame: pd.DataFrame) -> list[str]:
        try:
            self._encoder.transform(frame)
        except TableError as error:
            return error.problems
        return []


def tally_of(predictions: pa.Table) -> Tally:
    """Returns what was odd about the rows of a block that was scored."""
    return Tally.from_json(json.loads(predictions.schema.metadata[TALLY]))


def output_schema(table: pa.Schema | None, predictions: pa.Schema, model: Any) -> pa.Schema:
    """Puts predictions after the columns of a table, under names that the table leaves free.

    Args:
        table: The table's columns; None keeps none of them.
        predictions: The columns of the predictions.
        model: Says what made them, a JSON value: the schema's metadata `model`.
    """
    kept = pa.schema([]) if table is None else table
    names = free_names(predictions.names, kept.names)
    renamed = [field.with_name(names[field.name]) for field in predictions]
    stamp = {**(kept.metadata or {}), b"model": json.dumps(model).encode()}
    return pa.schema([*kept, *renamed], metadata=stamp)


def free_names(names: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Names columns anew where others have their names: `label` becomes `predicted_label`.

    Args:
        names: The names, all different.
        taken: The names of the others.

    Returns:
        The new name of each: not taken, and all different.
    """
    own, others, free = {*names}, {*taken}, {}
    for name in names:
        new = name
        while new in others or (new != name and new in own):
            new = f"predicted_{new}"
        others.add(new)
        free[name] = new
    return free


def beside(rows: pa.Table, predictions: pa.Table, schema: pa.Schema) -> pa.Table:
    """Puts the predictions of a block after those of its columns that the schema has."""
    n_kept = len(schema) - len(predictions.schema)
    return pa.table([*(rows[i] for i in range(n_kept)), *predictions.columns], schema=schema)


def count_labels(predictions: pa.Table) -> dict[str, int]:
    """Counts the rows of each label."""
    counts = pc.value_counts(predictions[LABEL]).to_pylist()
    return {str(entry["values"]): entry["counts"] for entry in counts}
