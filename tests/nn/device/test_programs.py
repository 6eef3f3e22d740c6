"""Steps and evaluations as a GPU replays them: the same calls on the same tensors, no waiting.

Here calls are recorded and replayed by torch's dispatcher, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from nn_harness import Table, run
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlops.configuration.hyperparameters import ACTIVATIONS, Hyperparameters
from mlops.nn.device.graphs import Graphs
from mlops.nn.training import Halving

MEMBERS = [
    Hyperparameters(
        hidden_dims=dims, activation=name, epochs=9, dropout=0.1 * k, label_smoothing=0.05 * k
    )
    for k, (name, dims) in enumerate(
        zip(ACTIVATIONS, [(16, 8), (9, 20), (30, 4), (5, 5)], strict=True)
    )
]
# What reads a value of the device, or makes a result whose size depends on one.
WAITING = {
    "_local_scalar_dense",
    "bincount",
    "equal",
    "index",  # by a mask
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique",
    "unique_dim",
}


class Recording(TorchDispatchMode):
    """Keeps the calls that are made, with the tensors that they return."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        assert func.overloadpacket.__name__ not in WAITING, func
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, found))
        return found

    def replay(self) -> None:
        """Makes the calls again; what they return goes where it went the first time."""
        for func, args, kwargs, before in self.calls:
            for old, new in zip(
                tree_leaves(before), tree_leaves(func(*args, **kwargs)), strict=True
            ):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Replayed:
    """Work that is called once, then recorded, then replayed; as `graphs._Replayed` does it."""

    replays = 0

    def __init__(self, work: Callable[[], None]) -> None:
        self._work, self._calls = work, 0
        self._recording = Recording()

    def __call__(self) -> None:
        self._calls += 1
        if self._calls == 1:
            self._work()
        elif self._calls == 2:
            with self._recording:
                self._work()
        else:
            Replayed.replays += 1
            self._recording.replay()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("halving", [None, Halving(2, 4)], ids=["all epochs", "halving"])
def test_replaying_gives_what_calling_gives(
    noisy: Table, monkeypatch: pytest.MonkeyPatch, halving: Halving | None, precision: str
) -> None:
    members = [*MEMBERS, replace(MEMBERS[0], learning_rate=1e30)]
    called = run(members, noisy, halving=halving, precision=precision)
    monkeypatch.setattr(Graphs, "replayable", lambda self, work: Replayed(work))
    Replayed.replays = 0
    replayed = run(members, noisy, halving=halving, precision=precision)
    assert Replayed.replays > 3
    # As text, in which one NaN equals another.
    assert repr(replayed.records) == repr(called.records)
    assert replayed.outcomes() == called.outcomes()
    for number, result in called.results.items():
        for name, tensor in result.weights.items():
            assert torch.equal(tensor, replayed.results[number].weights[name])
