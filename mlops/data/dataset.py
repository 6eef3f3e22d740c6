"""The encoded training and validation parts: all that training needs of a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlops.data.columns.features import FeatureEncoder
from mlops.data.table import Parts


@dataclass(frozen=True, eq=False)
class Dataset:
    """Encoded rows of the training and validation parts.

    Attributes:
        x_train: [N, F] float32, C-contiguous.
        y_train: [N] int64, codes into the classes.
        x_val: [M, F] float32, C-contiguous.
        y_val: [M] int64.
        n_classes: Number of classes.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    n_classes: int

    @property
    def n_features(self) -> int:
        """Number of encoded features F."""
        return int(self.x_train.shape[1])


def fit_encoder(parts: Parts) -> FeatureEncoder:
    """Fits the preprocessing on the training part, without copying it.

    Raises:
        TableError: A column has no value in the training part.
    """
    return FeatureEncoder.fit(parts.train.table, parts.train.rows, readings=parts.readings)


def encode(parts: Parts, encoder: FeatureEncoder) -> Dataset:
    """Encodes the training and validation parts straight from the shared table.

    The raw table stays alive as long as `parts` does. On large tables take `parts.test.frame` and
    drop `parts` once this has returned.
    """
    train, validation = parts.train, parts.validation
    return Dataset(
        x_train=encoder.transform(train.table, train.rows),
        y_train=train.target,
        x_val=encoder.transform(validation.table, validation.rows),
        y_val=validation.target,
        n_classes=len(parts.classes),
    )
