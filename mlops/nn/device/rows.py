"""The rows of a study on one device."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlops.nn.tasks.task import Task


@dataclass(frozen=True)
class Rows:
    """The rows of a study on one device, features float32, and what is to be told of them."""

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    task: Task

    @classmethod
    def on(
        cls,
        device: str,
        x_train: np.ndarray,
        y_train: np.ndarray,
        x_val: np.ndarray,
        y_val: np.ndarray,
        task: Task,
    ) -> Rows:
        def on_device(array: np.ndarray) -> Tensor:
            return _as_tensor(array).to(device)

        return cls(on_device(x_train), on_device(y_train), on_device(x_val), on_device(y_val), task)

    @property
    def n_features(self) -> int:
        return self.x_train.shape[1]


def _as_tensor(array: np.ndarray) -> Tensor:
    """Views an array as a tensor; nothing here writes to it, so a read-only one will do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)
