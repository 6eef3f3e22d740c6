"""Groups side by side, as on a GPU: pieces in turn, each group's tensors in its own lane only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from nn_harness import Table, run
from torch import Tensor

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.device.graphs import Lane
from mlops.nn.training import Halving

# Of two depths, so in two groups.
MEMBERS = [
    Hyperparameters(hidden_dims=dims, epochs=epochs, dropout=0.2)
    for dims, epochs in [((8,), 3), ((8,), 5), ((6, 6), 5), ((6, 6), 4)]
]


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlops.nn.turns.GROUPS_AT_ONCE", {"cpu": 3})
    monkeypatch.setattr("mlops.nn.sizes.STEPS_AT_ONCE", {"cpu": 2})


@pytest.mark.parametrize("halving", [None, Halving(2, 2)], ids=["all epochs", "halving"])
def test_groups_side_by_side_train_as_one_after_another(
    noisy: Table, monkeypatch: pytest.MonkeyPatch, halving: Halving | None
) -> None:
    monkeypatch.setattr("mlops.nn.sizes.STEPS_AT_ONCE", {"cpu": 2})
    alone = run(MEMBERS, noisy, halving=halving)
    monkeypatch.setattr("mlops.nn.turns.GROUPS_AT_ONCE", {"cpu": 3})
    together = run(MEMBERS, noisy, halving=halving)
    assert together.records == alone.records
    assert together.outcomes() == alone.outcomes()
    for number, result in alone.results.items():
        for name, tensor in result.weights.items():
            assert torch.equal(tensor, together.results[number].weights[name])


def test_pieces_come_in_turn_and_tensors_are_read_in_their_lane(
    noisy: Table, monkeypatch: pytest.MonkeyPatch, side_by_side: None
) -> None:
    entered: list[Lane] = []
    pieces: list[Lane] = []
    fetched: list[int] = []

    @contextmanager
    def enter(self: Lane) -> Iterator[None]:
        assert not entered
        entered.append(self)
        yield
        entered.pop()

    def pace(self: Lane) -> None:
        assert entered == [self]
        pieces.append(self)

    def fetch(self: Lane, tensor: Tensor) -> Tensor:
        assert entered == [self]
        fetched.append(tensor.dim())
        return tensor

    monkeypatch.setattr(Lane, "entered", enter)
    monkeypatch.setattr(Lane, "pace", pace)
    monkeypatch.setattr(Lane, "fetch", fetch)
    run(MEMBERS, noisy)
    # Scores after each epoch of a group, and the best weights, flat, when members leave.
    assert sorted(fetched) == [1] * 4 + [2] * 10
    # The first epoch of a group, in which memory is taken, is begun as a whole.
    lanes = list(dict.fromkeys(pieces))
    of_an_epoch = pieces.index(lanes[1])
    assert len(lanes) == 2
    assert of_an_epoch > 2
    second = pieces[2 * of_an_epoch : 4 * of_an_epoch]
    assert second == lanes * of_an_epoch
