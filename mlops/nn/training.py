"""Training of a pack: epochs, scores, the best weights of each member, pruning at rungs.

All randomness comes from (seed, epoch, step), so the state of a training is small: see `Snapshot`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.device.rows import Rows
from mlops.nn.group import Conditions, Group, Run
from mlops.nn.grouping import group_members
from mlops.nn.records import EpochRecord, Outcome, TrialResult
from mlops.nn.tasks.task import Task
from mlops.nn.turns import Events, Turns


@dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson & Talwalkar 2016, https://arxiv.org/abs/1502.07943).

    Attributes:
        eta: At each rung the best 1/eta of the pack go on.
        min_epochs: The first rung; each further one is eta times the one before.
    """

    eta: int
    min_epochs: int

    def rungs(self, epochs: int) -> list[int]:
        """Returns the epochs before `epochs` at which a pack is pruned."""
        count = max(0, math.ceil(math.log(epochs / self.min_epochs, self.eta) - 1e-9))
        return [self.min_epochs * self.eta**i for i in range(count)]


def fit(
    members: Sequence[Hyperparameters],
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_val: np.ndarray,
    y_val: np.ndarray,
    task: Task,
    *,
    seed: int,
    numbers: Sequence[int] | None = None,
    metric: str = "val_accuracy",
    halving: Halving | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> Iterator[EpochRecord | TrialResult]:
    """Trains a pack of configurations on the same rows.

    A member's run depends on (seed, its trial number, its configuration) only, not on its pack, up
    to the rounding of sums.

    Args:
        members: The configurations.
        x_train: [N, F] float32.
        y_train: [N], the task's target: of classes int64, from 0.
        x_val: [M, F] float32.
        y_val: [M] of the same kind.
        task: What is predicted.
        seed: The study's seed.
        numbers: The members' trial numbers; 0, 1, ... by default.
        metric: Which validation metric scores an epoch, of `tasks.metrics.METRICS`.
        halving: Pruning at rungs, over the whole pack; none by default.
        device: "cpu" or a CUDA device.
        precision: Of the products, a name in `precision.DTYPES`.

    Yields:
        An `EpochRecord` for each member and epoch, and one `TrialResult` for each member after its
        last record.
    """
    training = PackTraining(
        members,
        Rows.on(device, x_train, y_train, x_val, y_val, task),
        seed=seed,
        numbers=numbers,
        metric=metric,
        halving=halving,
        precision=precision,
    )
    for events in training.events():
        yield from events


class Snapshot(NamedTuple):
    """Where a pack's training stands, from which `PackTraining` goes on bit for bit.

    Members that have left are not in it. The tensors are copies, so training may go on.

    Attributes:
        tensors: What each group has learned, float32 on the CPU.
        facts: The rest, as JSON values.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class PackTraining:
    """A pack in training, which can be left and gone on with elsewhere.

    A snapshot goes on to the same records, results and weights as the training it was taken of, to
    the last bit on the same machine with as many threads, if it is given the same arguments.

    Args:
        members: The configurations, those included that have left by now.
        data: The rows.
        seed: The study's seed.
        numbers: The members' trial numbers; 0, 1, ... by default.
        metric: Which validation metric scores an epoch, of `tasks.metrics.METRICS`.
        halving: Pruning at rungs, over the whole pack; none by default.
        precision: Of the products, a name in `precision.DTYPES`.
        snapshot: Where to go on from; the beginning by default.
    """

    def __init__(
        self,
        members: Sequence[Hyperparameters],
        data: Rows,
        *,
        seed: int,
        numbers: Sequence[int] | None = None,
        metric: str = "val_accuracy",
        halving: Halving | None = None,
        precision: str = "float32",
        snapshot: Snapshot | None = None,
    ) -> None:
        numbers = range(len(members)) if numbers is None else numbers
        self._halving = halving
        self._last = max(member.epochs for member in members)
        self._rungs_done: int = snapshot.facts["rungs_done"] if snapshot else 0
        self._conditions = Conditions(data, seed, metric, precision)
        by_number = dict(zip(numbers, members, strict=True))
        self._groups = self._restored(snapshot, by_number) if snapshot else self._made(by_number)
        self._turns = Turns(self._groups, data.x_train.device, precision)

    def _made(self, members: Mapping[int, Hyperparameters]) -> list[Group]:
        data, runs = self._conditions.data, [Run(*item) for item in members.items()]
        n_outputs, device = data.task.n_outputs, data.x_train.device.type
        parts = group_members(list(members.values()), data.n_features, n_outputs, device)
        return [Group([runs[i] for i in part], self._conditions) for part in parts]

    def _restored(self, snapshot: Snapshot, members: Mapping[int, Hyperparameters]) -> list[Group]:
        groups = []
        for i, facts in enumerate(snapshot.facts["groups"]):
            runs = [Run(member=members[run["number"]], **run) for run in facts["runs"]]
            prefix = f"groups.{i}."
            learned = {
                name.removeprefix(prefix): tensor
                for name, tensor in snapshot.tensors.items()
                if name.startswith(prefix)
            }
            groups.append(Group(runs, self._conditions, facts["widths"], facts["epoch"], learned))
        return groups

    def events(self) -> Iterator[Events]:
        """Trains to the end.

        Yields:
            What one epoch of a group, on a GPU of several groups, or one rung brings: for each
            member an `EpochRecord`, and a `TrialResult` after its last record.
        """
        if self._halving is not None:
            for rung in self._halving.rungs(self._last)[self._rungs_done :]:
                yield from self._turns.until(rung)
                self._rungs_done += 1
                yield list(self._prune(self._halving.eta))
        yield from self._turns.until(self._last)

    def _prune(self, eta: int) -> Iterator[TrialResult]:
        """Keeps the best 1/eta of all members still running."""
        running = [(group, run) for group in self._groups for run in group.runs]
        running.sort(key=lambda pair: self._conditions.merit(pair[1]))
        keep = math.ceil(len(running) / eta)
        for group in self._groups:
            reasons = {
                run.number: f"rung at epoch {group.epoch}: {rank} of {len(running)}, {keep} go on"
                for rank, (owner, run) in enumerate(running, start=1)
                if owner is group and rank > keep
            }
            yield from group.release(Outcome.PRUNED, reasons)

    @property
    def is_under_way(self) -> bool:
        """Whether a member has not left."""
        return any(group.runs for group in self._groups)

    def release(self, reason: str) -> list[TrialResult]:
        """Lets all members leave as interrupted, with what they are best in so far.

        To be called while `events` waits to be asked for the next list, which there is not, then.
        """
        return [
            result
            for group in self._groups
            for result in group.release(
                Outcome.INTERRUPTED, {run.number: reason for run in group.runs}
            )
        ]

    def snapshot(self) -> Snapshot:
        """Returns where training stands after the last list that `events` has yielded.

        To be called while `events` waits to be asked for the next one, or before it is first asked.
        """
        tensors: dict[str, Tensor] = {}
        groups = []
        for i, group in enumerate(group for group in self._groups if group.runs):
            groups.append(group.facts())
            # Before its first epoch a group is what the seed makes it.
            tensors |= {f"groups.{i}.{name}": t for name, t in group.learned().items()}
        return Snapshot(tensors, {"rungs_done": self._rungs_done, "groups": groups})
