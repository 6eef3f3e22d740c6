"""What an open group holds of its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mlops.nn.device.graphs import Lane
from mlops.nn.device.passes import Passes
from mlops.nn.device.rows import Rows
from mlops.nn.optimizer import PackedAdamW
from mlops.nn.packed import PackedMLP


class Tensors:
    """Weights, moments and buffers of one pack, all of them made and used in one lane."""

    def __init__(self, pack: PackedMLP, data: Rows, lane: Lane) -> None:
        self.pack, self.lane = pack, lane
        self._data = data
        self.optimizer = PackedAdamW(pack)
        self.best = pack.parameters.clone()
        self.passes = Passes(pack, data, lane)

    def state(self) -> dict[str, Tensor]:
        """Returns the tensors that training changes, by name."""
        return {
            "parameters": self.pack.parameters,
            "best": self.best,
            "first_moment": self.optimizer.first_moment,
            "second_moment": self.optimizer.second_moment,
            "steps": self.optimizer.steps,
        }

    def pieces(self, seed: int, epoch: int) -> Iterator[None]:
        pieces = self.passes.pieces(self.optimizer, seed, epoch)
        is_over = False
        while not is_over:
            # Left after each piece: what comes between is of other lanes.
            with self.lane.entered():
                is_over = next(pieces, pieces) is pieces
            yield
        with self.lane.entered():
            columns = (*self.passes.trained(), *self.passes.evaluate())
            self._scores = torch.stack(columns, 1)

    def scores(self) -> list[list[float]]:
        """Returns each member's metrics of the epoch, once it is over."""
        with self.lane.entered():
            return self.lane.fetch(self._scores).tolist()

    def best_on_cpu(self) -> Tensor:
        """Returns the members' best weights, flat; on a CPU the tensor itself."""
        with self.lane.entered():
            return self.lane.fetch(self.best)

    def keep(self, improved: Sequence[int]) -> None:
        """Takes the weights of some members for their best ones."""
        with self.lane.entered():
            if len(improved) == len(self.pack):
                self.best.copy_(self.pack.parameters)
                return
            index = torch.tensor(improved, device=self.pack.device)
            for best, now in zip(self.pack.by_layer(self.best), self.pack.weights, strict=True):
                best.index_copy_(0, index, now.index_select(0, index))

    def select(self, keep: Sequence[int]) -> None:
        """Goes on with some members only."""
        with self.lane.entered():
            # In an order that makes room for what is held twice for a moment (measured: at most
            # 8.6 tensors of weights together, where training takes 8).
            del self.passes
            self.optimizer.release()
            self.best = self.pack.select_flat(self.best, keep)
            self.pack = self.pack.select(keep)
            self.optimizer.select(keep, self.pack)
            self.passes = Passes(self.pack, self._data, self.lane)
