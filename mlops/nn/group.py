"""Members of a pack that share tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn import streams
from mlops.nn.device.graphs import Lane
from mlops.nn.device.precision import DTYPES
from mlops.nn.device.rows import Rows
from mlops.nn.device.tensors import Tensors
from mlops.nn.packed import ALIGNMENT, PackedMLP
from mlops.nn.records import EpochRecord, Outcome, TrialResult, merit


@dataclass
class Run:
    """One member's way through its epochs; `best_metrics` are empty as long as it has none."""

    number: int
    member: Hyperparameters
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Conditions:
    """What all groups of a pack train under.

    Attributes:
        data: The rows.
        seed: The study's seed.
        metric: Which validation metric scores an epoch.
        precision: Of the products, a name in `precision.DTYPES`.
    """

    data: Rows
    seed: int
    metric: str
    precision: str = "float32"

    def merit(self, run: Run) -> tuple[float, ...]:
        """Sorts a member by its best epoch, the better first."""
        return self._key(run.best_metrics, run.best_epoch, run.number)

    def is_better(self, record: EpochRecord, run: Run) -> bool:
        """Tells whether an epoch is better than a member's best one."""
        return self._key(record.metrics, record.epoch, record.trial) < self.merit(run)

    def _key(self, metrics: Mapping[str, float], epoch: int, trial: int) -> tuple[float, ...]:
        return merit(self.metric, metrics, epoch, trial)


class Group:
    """Members that share tensors, epoch by epoch; finished ones leave and the tensors shrink.

    A group takes memory of the device with its first epoch and gives it back when it is closed or
    all members have left. What it had learned when it was opened is kept on the CPU until its next
    epoch is over: if the memory does not suffice for that, closing it undoes the attempt.

    Args:
        runs: The members' ways so far.
        conditions: What all groups share.
        widths: What layers are padded to; the widest member's by default.
        epoch: Epochs done.
        learned: The tensors of `learned` after that epoch.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        conditions: Conditions,
        widths: Sequence[int] | None = None,
        epoch: int = 0,
        learned: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.runs, self.epoch = list(runs), epoch
        self._conditions = conditions
        self._learned = learned if epoch > 0 else None
        self._tensors: Tensors | None = None
        self._widths = list(widths or self._pack("meta").widths)

    @property
    def is_open(self) -> bool:
        """Whether it holds memory of the device."""
        return self._tensors is not None

    def is_before(self, epoch: int) -> bool:
        """Tells whether it has members that are to be trained up to an epoch."""
        return bool(self.runs) and self.epoch < epoch

    def facts(self) -> dict[str, Any]:
        """Returns what a group like this one is made from, as JSON values.

        The widths are among them: those padded for members that have left decide how sums round.
        """
        runs = [{k: v for k, v in vars(run).items() if k != "member"} for run in self.runs]
        return {"epoch": self.epoch, "widths": self._widths, "runs": runs}

    def learned(self) -> Mapping[str, Tensor]:
        """Returns what training has changed, by name, on the CPU; nothing before the first epoch.

        The tensors do not change any more.
        """
        if self._learned is not None:
            return self._learned
        if self._tensors is None or self.epoch == 0:
            return {}
        with self._tensors.lane.entered():
            state = self._tensors.state()
            return {name: tensor.to("cpu", copy=True) for name, tensor in state.items()}

    def begin_epoch(self) -> None:
        """Starts an epoch. On a GPU it may be still under way when this returns."""
        for _ in self.pieces():
            pass

    @torch.inference_mode()
    def pieces(self) -> Iterator[None]:
        """Starts an epoch, piece by piece, so that others can be given some of theirs between."""
        if self._tensors is None:
            self._tensors = self._opened()
        yield from self._tensors.pieces(self._conditions.seed, self.epoch + 1)

    @torch.inference_mode()
    def wait(self) -> None:
        """Waits for the epoch."""
        self._rows = self._open_tensors().scores()

    @torch.inference_mode()
    def end_epoch(self, seconds: float) -> list[EpochRecord | TrialResult]:
        """Ends the epoch that has been waited for.

        Args:
            seconds: The share of a member in the time it took.

        Returns:
            The members' records and those who left.
        """
        self.epoch += 1
        self._learned = None
        records = [
            EpochRecord(run.number, self.epoch, *row)
            for run, row in zip(self.runs, self._rows, strict=True)
        ]
        failed = {r.trial: reason for r in records if (reason := _non_finite(r))}
        self._keep_best(records, failed)
        for run in self.runs:
            run.seconds += seconds
        left = self.release(Outcome.FAILED, failed)
        done = {run.number: None for run in self.runs if run.member.epochs <= self.epoch}
        return [*records, *left, *self.release(Outcome.COMPLETED, done)]

    @torch.inference_mode()
    def release(self, outcome: Outcome, reasons: Mapping[int, str | None]) -> list[TrialResult]:
        """Lets members leave by trial number; the others go on in smaller tensors."""
        if not reasons:
            return []
        leaving = [k for k, run in enumerate(self.runs) if run.number in reasons]
        best = None if outcome is Outcome.FAILED else self._best()
        results = [self._result(k, outcome, reasons[self.runs[k].number], best) for k in leaving]
        keep = [k for k, run in enumerate(self.runs) if run.number not in reasons]
        if not keep:
            self._tensors = self._learned = None
        elif self._tensors is not None:
            self._tensors.select(keep)
        elif self._learned is not None:
            self._learned = self._learned_by(keep)
        self.runs = [self.runs[k] for k in keep]
        return results

    @torch.inference_mode()
    def close(self) -> None:
        """Gives the device's memory back; an epoch that was begun is to be begun again."""
        if self._tensors is not None:
            self._tensors.lane.finish()
            self._learned = self.learned() or None
            self._tensors = None

    def split(self) -> tuple[Group, Group]:
        """Returns two groups of half the members each, to go on in place of this closed one."""
        middle = len(self.runs) // 2
        return self._part(range(middle)), self._part(range(middle, len(self.runs)))

    def _part(self, keep: Sequence[int]) -> Group:
        runs = [self.runs[k] for k in keep]
        if self._learned is None:
            return Group(runs, self._conditions)
        return Group(runs, self._conditions, self._widths, self.epoch, self._learned_by(keep))

    def _pack(self, device: torch.device | str, widths: Sequence[int] | None = None) -> PackedMLP:
        """Makes the group's pack, all zeros; on the device `meta` it takes no memory."""
        data = self._conditions.data
        return PackedMLP(
            [run.member for run in self.runs],
            data.n_features,
            data.task.n_outputs,
            device,
            widths,
            DTYPES[self._conditions.precision],
            ALIGNMENT[data.x_train.device.type],
        )

    def _opened(self) -> Tensors:
        data = self._conditions.data
        device = data.x_train.device
        lane = Lane(device)
        with lane.entered():
            pack = self._pack(device, self._widths)
            if self._learned is None:
                seed = self._conditions.seed
                pack.reset([streams.initial_weights(seed, run.number) for run in self.runs])
            tensors = Tensors(pack, data, lane)
            if self._learned:
                for name, tensor in tensors.state().items():
                    tensor.copy_(self._learned[name])
        return tensors

    def _open_tensors(self) -> Tensors:
        assert self._tensors is not None, "the group must have begun an epoch"
        return self._tensors

    def _learned_by(self, keep: Sequence[int]) -> dict[str, Tensor]:
        """Returns what the members `keep` of this closed group have learned."""
        assert self._learned is not None
        layout = self._layout()
        return {
            name: layout.select_flat(tensor, keep) if tensor.dim() else tensor
            for name, tensor in self._learned.items()
        }

    def _keep_best(self, records: Sequence[EpochRecord], failed: Mapping[int, str]) -> None:
        improved = []
        for k, (run, record) in enumerate(zip(self.runs, records, strict=True)):
            if record.trial not in failed and self._conditions.is_better(record, run):
                run.best_epoch, run.best_metrics = record.epoch, record.metrics
                improved.append(k)
        if improved:
            self._open_tensors().keep(improved)

    def _result(
        self, k: int, outcome: Outcome, reason: str | None, best: Tensor | None
    ) -> TrialResult:
        run = self.runs[k]
        scored = outcome is not Outcome.FAILED and run.best_epoch > 0
        return TrialResult(
            trial=run.number,
            outcome=outcome,
            reason=reason,
            epochs=self.epoch,
            best_epoch=run.best_epoch if scored else 0,
            score=run.best_metrics[self._conditions.metric] if scored else None,
            metrics=run.best_metrics if scored else {},
            seconds=run.seconds,
            weights=self._layout().member_weights(k, best) if scored else {},
        )

    def _best(self) -> Tensor | None:
        """Returns all members' best weights on the CPU, flat; a copy a member is 10x slower."""
        if self._tensors is not None:
            return self._tensors.best_on_cpu()
        return None if self._learned is None else self._learned["best"]

    def _layout(self) -> PackedMLP:
        """Returns a pack of these members, for how it lays out a flat tensor."""
        if self._tensors is not None:
            return self._tensors.pack
        return self._pack("meta", self._widths)


def _non_finite(record: EpochRecord) -> str | None:
    if math.isfinite(record.train_loss + record.val_loss):  # then both are
        return None
    for name in ("train_loss", "val_loss"):
        value = getattr(record, name)
        if not math.isfinite(value):
            return f"{name} became {value} in epoch {record.epoch}"
    return None
