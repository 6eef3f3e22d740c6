"""Which of some classes a row is of. torch is imported where it is needed: servers do without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlops.nn.tasks.metrics import OF_CLASSES, Metric

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mlops.nn.tasks.cross_entropy import CrossEntropy, ModelScores, PackScores, Totals


@dataclass(frozen=True, eq=False)
class Classification:
    """The task of telling classes apart.

    A network's outputs are logits, one a class; a prediction of them is a probability for each
    class, and the answer the label of the most probable one, the first of equal ones.

    Attributes:
        classes: The labels, JSON values, in the order of the outputs. A target is codes into them.
    """

    classes: Sequence[Any]

    name: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[Metric, ...]] = OF_CLASSES

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Classification:
        """Reads what `to_json` wrote."""
        return cls(description["classes"])

    def to_json(self) -> dict[str, Any]:
        """Returns what a model's description says of its task."""
        return {"task": self.name, "classes": list(self.classes)}

    @property
    def n_outputs(self) -> int:
        """Width of a network's output."""
        return len(self.classes)

    # In training. Values are tensors of a device, and nothing here waits for it.

    def totals(self, members: int, device: torch.device) -> Totals:
        """Makes what the steps of an epoch add to, for a pack of so many members."""
        from mlops.nn.tasks.cross_entropy import Totals

        return Totals.of(members, device)

    def loss(
        self, smoothing: Sequence[float], n_steps: int, batch_size: int, totals: Totals
    ) -> CrossEntropy:
        """Makes the loss of some steps.

        Args:
            smoothing: Each member's label smoothing.
            n_steps: Steps.
            batch_size: Rows of a step.
            totals: What to add to.
        """
        from mlops.nn.tasks.cross_entropy import CrossEntropy

        return CrossEntropy(self.n_outputs, smoothing, n_steps, batch_size, totals)

    def pack_scores(self, members: int, target: Tensor) -> PackScores:
        """Makes the scores of a pack on rows of this target."""
        from mlops.nn.tasks.cross_entropy import PackScores

        return PackScores(self.n_outputs, members, target)

    def model_scores(self) -> ModelScores:
        """Makes the scores of one model."""
        from mlops.nn.tasks.cross_entropy import ModelScores

        return ModelScores(self.n_outputs)

    # In answers.

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the probabilities of outputs: [N, C] float32 to [N, C] float64."""
        exact = outputs.astype(np.float64)
        exact -= exact.max(axis=1, keepdims=True)
        np.exp(exact, out=exact)
        exact /= exact.sum(axis=1, keepdims=True)
        return exact

    def predictions_of_tensor(self, outputs: Tensor) -> np.ndarray:
        """Returns the same by torch, whose exponential differs in the last bit."""
        import torch

        return torch.softmax(outputs.double(), 1).numpy()

    def answers(self, predictions: np.ndarray) -> list[Any]:
        """Returns the label of each row, as JSON values."""
        classes = self.classes
        return [classes[i] for i in predictions.argmax(axis=1).tolist()]

    def answer_column(self, predictions: np.ndarray, make: Callable[[Any], Any]) -> Any:
        """Returns the same as a column.

        Args:
            predictions: [N, C].
            make: Makes a column of values that can be taken by places: `pandas.Series`, say.
        """
        return make(self.classes).take(predictions.argmax(axis=1))

    @cached_property
    def columns(self) -> list[str]:
        """Names the columns of a table of answers: the answer, then a prediction's values."""
        return ["label", *(f"probability_{label}" for label in self.classes)]

    @cached_property
    def class_names(self) -> list[str]:
        """The classes as keys of a JSON object."""
        return [str(label) for label in self.classes]

    def objects(self, predictions: np.ndarray) -> list[Any]:
        """Returns the answers as JSON objects of a label and its probabilities by class."""
        names = self.class_names
        return [
            {"label": label, "probabilities": dict(zip(names, row, strict=True))}
            for label, row in zip(self.answers(predictions), predictions.tolist(), strict=True)
        ]

    def flat_objects(self, predictions: np.ndarray) -> list[Any]:
        """Returns the answers as JSON objects of `columns`."""
        names = self.columns
        return [
            dict(zip(names, (label, *row), strict=True))
            for label, row in zip(self.answers(predictions), predictions.tolist(), strict=True)
        ]
