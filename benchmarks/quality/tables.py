"""The tables: where they are, what is predicted, and on how many splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlops.data.table import Parts, load_parts
from mlops.settings.sections import DataSettings

# Test parts of small tables are small, so more of them are looked at.
FEW_ROWS = 3000
SPLITS, SPLITS_OF_FEW = 3, 10


@dataclass(frozen=True)
class Table:
    """A table of a folder that the user names; none of them is in this repository.

    Attributes:
        name: What it is called in results.
        file: The file in that folder.
        target: The column to predict.
        test_file: Its official test part, if it has one.
    """

    name: str
    file: str
    target: str
    test_file: str | None = None

    def settings(self, folder: Path, split: int) -> dict[str, str | int]:
        """Returns what of the settings of `data` says how it is read and split."""
        test = {"test_path": str(folder / self.test_file)} if self.test_file else {}
        path = str(folder / self.file)
        return {"path": path, "target": self.target, "split_seed": split, **test}

    def flags(self, folder: Path, split: int) -> list[str]:
        """Returns what a job must be told to learn from it."""
        given = self.settings(folder, split).items()
        return [word for name, value in given for word in (f"--data.{name}", str(value))]

    def parts(self, folder: Path, split: int) -> Parts:
        """Reads and splits it, as a job does."""
        return load_parts(DataSettings.model_validate(self.settings(folder, split)))


CLASSES = (
    Table("adult", "adult_train.csv", "income", "adult_test.csv"),
    Table("bank", "bank_marketing.csv", "deposit"),
    Table("credit_g", "credit_g.csv", "class"),
    Table("phoneme", "phoneme.csv", "nasal"),
    Table("pima", "pima_diabetes.csv", "diabetes"),
    Table("telco", "telco_churn.csv", "Churn"),
    Table("wine_quality", "wine_quality.csv", "quality"),
    Table("segment", "segment.csv", "class"),
    Table("vehicle", "vehicle.csv", "Class"),
    Table("waveform", "waveform.csv", "class"),
    Table("page_blocks", "page_blocks.csv", "class"),
    Table("car", "car.csv", "class"),
    Table("titanic", "titanic.csv", "Survived"),
    Table("credit_default", "credit_default.csv", "default"),
)


def n_splits(parts: Parts) -> int:
    """Returns on how many splits a table is tried."""
    n_rows = sum(len(part) for part in (parts.train, parts.validation, parts.test))
    return SPLITS_OF_FEW if n_rows < FEW_ROWS else SPLITS


@dataclass(frozen=True)
class Score:
    """How well some rows were predicted.

    Attributes:
        rows: How many there are.
        errors: How many answers were wrong.
        log_loss: Mean over the rows, in nats.
    """

    rows: int
    errors: int
    log_loss: float

    @classmethod
    def of(cls, probabilities: np.ndarray, target: np.ndarray) -> Score:
        """Scores probabilities ([N, C]) by codes ([N])."""
        likelihood = probabilities[np.arange(len(target)), target].astype(np.float64)
        wrong = int((probabilities.argmax(1) != target).sum())
        loss = float(-np.log(np.clip(likelihood, 1e-15, 1.0)).mean())
        return cls(len(target), wrong, loss)
