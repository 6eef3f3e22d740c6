"""Training of a pack: epochs, scores, the best weights of each member, pruning at rungs.

All randomness comes from (seed, epoch, step), so the state of a training is small: see `Snapshot`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlops.hyperparameters import Hyperparameters
from mlops.nn import streams
from mlops.nn.grouping import group_members
from mlops.nn.metrics import accuracy, macro_f1
from mlops.nn.mlp import MLP, PackedMLP
from mlops.nn.optimizer import PackedAdamW
from mlops.nn.passes import Passes, Rows
from mlops.nn.records import METRICS, EpochRecord, Outcome, TrialResult


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
    n_classes: int,
    *,
    seed: int,
    numbers: Sequence[int] | None = None,
    metric: str = "val_accuracy",
    halving: Halving | None = None,
    device: str = "cpu",
) -> Iterator[EpochRecord | TrialResult]:
    """Trains a pack of configurations on the same rows.

    A member's run depends on (seed, its trial number, its configuration) only, not on its pack, up
    to the rounding of sums.

    Args:
        members: The configurations.
        x_train: [N, F] float32.
        y_train: [N] int64, classes from 0.
        x_val: [M, F] float32.
        y_val: [M] int64.
        n_classes: Number of classes.
        seed: The study's seed.
        numbers: The members' trial numbers; 0, 1, ... by default.
        metric: Which validation metric scores an epoch, of `records.METRICS`.
        halving: Pruning at rungs, over the whole pack; none by default.
        device: "cpu" or a CUDA device.

    Yields:
        An `EpochRecord` for each member and epoch, and one `TrialResult` for each member after its
        last record.
    """
    training = PackTraining(
        members,
        Rows.on(device, x_train, y_train, x_val, y_val, n_classes),
        seed=seed,
        numbers=numbers,
        metric=metric,
        halving=halving,
    )
    for events in training.events():
        yield from events


class Snapshot(NamedTuple):
    """Where a pack's training stands, from which `PackTraining` goes on bit for bit.

    Members that have left are not in it. The tensors are copies, so training may go on.

    Attributes:
        tensors: What each group has learned, float32 on the CPU.
        facts: The rest, as JSON values, and -inf as the score of who has none yet.
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
        metric: Which validation metric scores an epoch, of `records.METRICS`.
        halving: Pruning at rungs, over the whole pack; none by default.
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
        snapshot: Snapshot | None = None,
    ) -> None:
        numbers = range(len(members)) if numbers is None else numbers
        self._halving = halving
        self._last = max(member.epochs for member in members)
        self._rungs_done: int = snapshot.facts["rungs_done"] if snapshot else 0
        self._groups: list[_Group] = []
        if snapshot is None:
            for part in group_members(members, data.n_features, data.n_classes):
                runs = [_Run(numbers[i], members[i]) for i in part]
                self._groups.append(_Group(runs, data, seed, metric))
        else:
            by_number = dict(zip(numbers, members, strict=True))
            for i, facts in enumerate(snapshot.facts["groups"]):
                runs = [_Run(member=by_number[run["number"]], **run) for run in facts["runs"]]
                group = _Group(runs, data, seed, metric, facts["widths"])
                group.go_on(facts["epoch"], snapshot.tensors, f"groups.{i}.")
                self._groups.append(group)

    def events(self) -> Iterator[list[EpochRecord | TrialResult]]:
        """Trains to the end.

        Yields:
            What one epoch of a group, or one rung, brings: for each member an `EpochRecord`, and a
            `TrialResult` after its last record.
        """
        rungs = self._halving.rungs(self._last) if self._halving else []
        for rung in rungs[self._rungs_done :]:
            yield from self._train_until(rung)
            self._rungs_done += 1
            yield list(_prune(self._groups, self._halving.eta))  # type: ignore[union-attr]
        yield from self._train_until(self._last)

    def _train_until(self, epoch: int) -> Iterator[list[EpochRecord | TrialResult]]:
        for group in self._groups:
            while group.runs and group.epoch < epoch:
                yield group.train_epoch()

    def snapshot(self) -> Snapshot:
        """Returns where training stands after the last list that `events` has yielded.

        To be called while `events` waits to be asked for the next one, or before it is first asked.
        """
        tensors: dict[str, Tensor] = {}
        groups = []
        for i, group in enumerate(group for group in self._groups if group.runs):
            groups.append(group.facts())
            # Before its first epoch a group is what the seed makes it.
            if group.epoch > 0:
                tensors |= {
                    f"groups.{i}.{name}": tensor.to("cpu", copy=True)
                    for name, tensor in group.state().items()
                }
        return Snapshot(tensors, {"rungs_done": self._rungs_done, "groups": groups})


def _prune(groups: Sequence[_Group], eta: int) -> Iterator[TrialResult]:
    """Keeps the best 1/eta of all members still running; ties go to the lower trial number."""
    running = [(group, run) for group in groups for run in group.runs]
    running.sort(key=lambda pair: (-pair[1].best_merit, pair[1].number))
    keep = math.ceil(len(running) / eta)
    for group in groups:
        reasons = {
            run.number: f"rung at epoch {group.epoch}: {rank} of {len(running)}, {keep} go on"
            for rank, (owner, run) in enumerate(running, start=1)
            if owner is group and rank > keep
        }
        yield from group.release(Outcome.PRUNED, reasons)


@dataclass
class _Run:
    """One member's way through its epochs."""

    number: int
    member: Hyperparameters
    best_merit: float = -math.inf
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


class _Group:
    """Members that share tensors, epoch by epoch; finished ones leave and the tensors shrink."""

    def __init__(
        self,
        runs: Sequence[_Run],
        data: Rows,
        seed: int,
        metric: str,
        widths: Sequence[int] | None = None,
    ) -> None:
        self.data, self.seed, self.metric = data, seed, metric
        self.runs = list(runs)
        self.epoch = 0
        members = [run.member for run in runs]
        device = data.x_train.device
        self.pack = PackedMLP(members, data.n_features, data.n_classes, device, widths)
        for k, run in enumerate(self.runs):
            mlp = MLP(data.n_features, data.n_classes, run.member.hidden_dims)
            self.pack.load_member(k, mlp.reset(streams.initial_weights(seed, run.number)))
        self.optimizer = PackedAdamW(self.pack)
        self.best = self.pack.parameters.clone()
        self.passes = Passes(self.pack, data)

    def facts(self) -> dict[str, Any]:
        """Returns what a group like this one is made from, as JSON values.

        The widths are among them: those padded for members that have left decide how sums round.
        """
        runs = [{k: v for k, v in vars(run).items() if k != "member"} for run in self.runs]
        return {"epoch": self.epoch, "widths": self.pack.widths, "runs": runs}

    def state(self) -> dict[str, Tensor]:
        """Returns the tensors that training changes, by name."""
        return {
            "parameters": self.pack.parameters,
            "best": self.best,
            "first_moment": self.optimizer.first_moment,
            "second_moment": self.optimizer.second_moment,
            "steps": self.optimizer.steps,
        }

    def go_on(self, epoch: int, tensors: Mapping[str, Tensor], prefix: str) -> None:
        """Takes the tensors, under `prefix` and their names, that a group had after `epoch`."""
        self.epoch = epoch
        if epoch > 0:
            for name, tensor in self.state().items():
                tensor.copy_(tensors[prefix + name])

    @torch.inference_mode()
    def train_epoch(self) -> list[EpochRecord | TrialResult]:
        """Trains all members for one epoch; returns their records and those who left."""
        started = time.perf_counter()
        self.epoch += 1
        train_loss, train_accuracy = self.passes.train(self.optimizer, self.seed, self.epoch)
        val_loss, confusion = self.passes.evaluate()
        columns = (train_loss, train_accuracy, val_loss, accuracy(confusion), macro_f1(confusion))
        rows = torch.stack(columns, 1).tolist()
        records = [
            EpochRecord(run.number, self.epoch, *row)
            for run, row in zip(self.runs, rows, strict=True)
        ]
        self._keep_best(records)
        share = (time.perf_counter() - started) / len(self.runs)
        for run in self.runs:
            run.seconds += share
        failed = {r.trial: reason for r in records if (reason := _non_finite(r))}
        left = self.release(Outcome.FAILED, failed)
        done = {run.number: None for run in self.runs if run.member.epochs <= self.epoch}
        return [*records, *left, *self.release(Outcome.COMPLETED, done)]

    def _keep_best(self, records: Sequence[EpochRecord]) -> None:
        sign = 1.0 if METRICS[self.metric] == "max" else -1.0
        improved = []
        for k, (run, record) in enumerate(zip(self.runs, records, strict=True)):
            merit = sign * getattr(record, self.metric)
            if merit > run.best_merit and not _non_finite(record):
                run.best_merit, run.best_epoch = merit, record.epoch
                run.best_metrics = record.metrics
                improved.append(k)
        if len(improved) == len(self.runs):
            self.best.copy_(self.pack.parameters)
        elif improved:
            for best, now in zip(self.pack.by_layer(self.best), self.pack.weights, strict=True):
                best[improved] = now[improved]

    @torch.inference_mode()
    def release(self, outcome: Outcome, reasons: Mapping[int, str | None]) -> list[TrialResult]:
        """Lets members leave by trial number; the others go on in smaller tensors."""
        if not reasons:
            return []
        leaving = [k for k, run in enumerate(self.runs) if run.number in reasons]
        results = [self._result(k, outcome, reasons[self.runs[k].number]) for k in leaving]
        keep = [k for k, run in enumerate(self.runs) if run.number not in reasons]
        self.runs = [self.runs[k] for k in keep]
        if keep:
            pack = self.pack.select(keep)
            self.optimizer.select(keep, pack)
            self.best = self.pack.select_flat(self.best, keep)
            self.pack = pack
            self.passes = Passes(pack, self.data)
        return results

    def _result(self, k: int, outcome: Outcome, reason: str | None) -> TrialResult:
        run = self.runs[k]
        scored = outcome is not Outcome.FAILED and run.best_epoch > 0
        return TrialResult(
            trial=run.number,
            outcome=outcome,
            reason=reason,
            epochs=self.epoch,
            best_epoch=run.best_epoch if scored else 0,
            score=run.best_metrics[self.metric] if scored else None,
            metrics=run.best_metrics if scored else {},
            seconds=run.seconds,
            weights=self.pack.member_weights(k, self.best) if scored else {},
        )


def _non_finite(record: EpochRecord) -> str | None:
    for name in ("train_loss", "val_loss"):
        value = getattr(record, name)
        if not math.isfinite(value):
            return f"{name} became {value} in epoch {record.epoch}"
    return None
