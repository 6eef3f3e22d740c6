"""One thread, as in a study's workers, and the tables that these tests train on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from nn_harness import Table, standardize

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.tasks.classification import Classification


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def noisy() -> Table:
    """Three overlapping classes: 203 rows to train on, so that the last batch is a partial one."""
    rng = np.random.default_rng(7)
    centers = rng.normal(size=(3, 6))
    y = rng.integers(0, 3, 303)
    x = standardize(centers[y] + 1.2 * rng.normal(size=(303, 6)))
    return Table(x[:203], y[:203], x[203:], y[203:], Classification(range(3)))


@pytest.fixture(scope="session")
def separable() -> Table:
    """Two classes on either side of a wide gap."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 8)).astype(np.float32)
    side = x[:, 0] + x[:, 1] - x[:, 2]
    x, side = x[abs(side) > 0.4][:1000], side[abs(side) > 0.4][:1000]
    y = (side > 0).astype(np.int64)
    return Table(x[:700], y[:700], x[700:], y[700:], Classification(range(2)))


@pytest.fixture(scope="session")
def digits() -> Table:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16.0).astype(np.float32), y[order].astype(np.int64)
    return Table(x[:1200], y[:1200], x[1200:], y[1200:], Classification(range(10)))


@pytest.fixture
def one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `fit` put all members of a pack in one group, however much padding that costs."""

    def together(members: list[Hyperparameters], *_: object, **__: object) -> list[list[int]]:
        return [sorted(range(len(members)), key=lambda i: members[i].activation)]

    monkeypatch.setattr("mlops.nn.training.group_members", together)
