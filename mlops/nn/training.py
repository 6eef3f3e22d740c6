"""Training of a pack: epochs, scores, the best weights of each member, pruning at rungs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

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
    numbers = range(len(members)) if numbers is None else numbers
    data = Rows.on(device, x_train, y_train, x_val, y_val, n_classes)
    groups = [
        _Group([members[i] for i in part], [numbers[i] for i in part], data, seed, metric)
        for part in group_members(members, data.n_features, n_classes)
    ]
    last = max(member.epochs for member in members)
    for rung in halving.rungs(last) if halving else []:
        yield from _train_until(groups, rung)
        yield from _prune(groups, halving.eta)  # type: ignore[union-attr]
    yield from _train_until(groups, last)


def _train_until(groups: Sequence[_Group], epoch: int) -> Iterator[EpochRecord | TrialResult]:
    for group in groups:
        while group.runs and group.epoch < epoch:
            yield from group.train_epoch()


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
        members: Sequence[Hyperparameters],
        numbers: Sequence[int],
        data: Rows,
        seed: int,
        metric: str,
    ) -> None:
        self.data, self.seed, self.metric = data, seed, metric
        self.runs = [_Run(n, member) for n, member in zip(numbers, members, strict=True)]
        self.epoch = 0
        self.pack = PackedMLP(members, data.n_features, data.n_classes, data.x_train.device)
        for k, run in enumerate(self.runs):
            mlp = MLP(data.n_features, data.n_classes, run.member.hidden_dims)
            self.pack.load_member(k, mlp.reset(streams.initial_weights(seed, run.number)))
        self.optimizer = PackedAdamW(self.pack)
        self.best = self.pack.parameters.clone()
        self.passes = Passes(self.pack, data)

    @torch.inference_mode()
    def train_epoch(self) -> list[EpochRecord | TrialResult]:
        """Trains all members for one epoch; returns their records and those who left."""
        started = time.perf_counter()
        self.epoch += 1
        train_loss, train_accuracy = self.passes.train(self.optimizer, self.seed, self.epoch)
        val_loss, confusion = self.passes.evaluate(self.data.x_val, self.data.y_val)
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
