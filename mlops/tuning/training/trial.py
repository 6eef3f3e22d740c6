"""A pack as a Ray Tune trial.

torch is imported by the worker only: the driver names this class and need not wait for it.
"""

from __future__ import annotations

import faulthandler
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray import tune

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.records import MERIT, NO_MERIT, EpochRecord, Outcome, TrialResult, merit
from mlops.tuning.training.checkpoint import Checkpoints, Told
from mlops.tuning.training.options import PackOptions, SharedRows

if TYPE_CHECKING:
    from mlops.nn.training import PackTraining


class PackTrial(tune.Trainable):
    """Trains a pack, reporting by time; every report carries what happened since the last one.

    A report has `records` (`EpochRecord` fields) and `results` (`TrialResult` fields with the
    `node` and `device` that trained it in place of weights), and when one of them is the pack's
    best so far `best`: its number and the safetensors bytes of its weights. Settled trials, trained
    again for their neighbours' sake, are not in that contest: their scores may differ a little from
    those on record. `scores` has [trial number, score or None] for each trial that has ended; the
    last report is `done`. A pack that goes on from a checkpoint first reports again all that it had
    told by then.

    A pack that is to release its trials leaves a checkpoint to go on from. Its last report has them
    as interrupted, with their scores so far, which count for the best but are not among `scores`.
    """

    def setup(self, config: dict[str, Any], rows: SharedRows, options: PackOptions) -> None:
        """Takes the rows from the object store, where all workers of a host share one copy.

        Args:
            config: A pack, as `PackSearch` proposes it.
            rows: The rows to train and validate on.
            options: The study's options.
        """
        import torch

        torch.set_num_threads(options.threads)
        self._device = self._choose_device(options.gpus)
        if self._device == "cuda":
            # So that it runs short itself, and takes smaller packs, before its neighbours do.
            torch.cuda.set_per_process_memory_fraction(options.gpus)
        self._rows: tuple[np.ndarray, ...] = ray.get(rows.arrays)
        self._task = rows.task
        self._options = options
        self._place = _place(self._device)
        self._checkpoints: Checkpoints | None = None
        if options.checkpoints is not None:
            self._checkpoints = Checkpoints(
                options.checkpoints, options.checkpoint_every, self._rows
            )
        self._start(config)

    def _choose_device(self, gpus: float) -> str:
        return "cuda" if gpus else "cpu"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next pack in the same process, which saves starting one."""
        self._start(new_config)
        return True

    def get_auto_filled_metrics(self, *args: Any, **named: Any) -> dict[str, Any]:
        """Adds to a report what Tune wants of it; not the pack itself, which the driver has."""
        metrics: dict[str, Any] = super().get_auto_filled_metrics(*args, **named)
        metrics.pop("config", None)
        return metrics

    def _start(self, config: dict[str, Any]) -> None:
        members = {
            trial["number"]: Hyperparameters.from_dict(trial["params"])
            for trial in config["trials"]
            if trial["duplicate_of"] is None
        }
        self._told = Told()
        self._training: PackTraining | None = None
        self._stopped: str | None = None
        self._settled = frozenset(config["settled"])
        self._events = self._train(config["pack"], members) if members else iter(())

    def _train(
        self, pack: int, members: Mapping[int, Hyperparameters]
    ) -> Iterator[list[EpochRecord | TrialResult]]:
        """Yields all that happens to a pack, of its past too if there is a checkpoint."""
        from mlops.nn.device.memory import shortage
        from mlops.nn.device.rows import Rows
        from mlops.nn.training import Halving, PackTraining

        options, checkpoints, snapshot = self._options, self._checkpoints, None
        if checkpoints is not None:
            snapshot, told = checkpoints.open(pack, self._fingerprint(members))
            yield told.events()
        x_train, y_train, x_val, y_val = self._rows
        on_device: list[Rows] = []
        lack = shortage(
            lambda: on_device.append(
                Rows.on(self._device, x_train, y_train, x_val, y_val, self._task)
            )
        )
        if lack is not None:
            size = sum(array.nbytes for array in self._rows) / 1e6
            reason = f"the table, {size:,.0f} MB encoded, does not fit the device's memory: {lack}"
            ended = {result["trial"] for result in self._told.results}
            yield [_failed(number, reason) for number in members if number not in ended]
            return
        self._training = training = PackTraining(
            list(members.values()),
            on_device[0],
            seed=options.seed,
            numbers=list(members),
            metric=options.metric,
            halving=Halving(options.eta, options.min_epochs) if options.eta else None,
            precision=options.precision,
            snapshot=snapshot,
        )
        for events in training.events():
            yield events
            # `step` has added these to what is told: both sides of a checkpoint are of one moment.
            if checkpoints is not None and checkpoints.is_due():
                checkpoints.write(training.snapshot(), self._told)
        if checkpoints is not None:
            checkpoints.remove()

    def _fingerprint(self, members: Mapping[int, Hyperparameters]) -> dict[str, Any]:
        """Returns what a pack's training depends on besides the rows, as JSON values."""
        options = self._options
        return {
            "seed": options.seed,
            "metric": options.metric,
            "merit": MERIT,
            "eta": options.eta,
            "min_epochs": options.min_epochs,
            "device": self._device,
            "precision": options.precision,
            "n_classes": self._task.n_outputs,
            "trials": [[number, member.to_dict()] for number, member in members.items()],
        }

    def release(self, reason: str) -> dict[str, Any]:
        """Makes the last report of a pack that is not trained further for now.

        Args:
            reason: Why it is not.
        """
        self._stopped = reason
        return self.train()

    def step(self) -> dict[str, Any]:
        """Trains until the next report, or ends the process when an epoch takes for ever."""
        self._expect_progress()
        try:
            return self._step() if self._stopped is None else self._release(self._stopped)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _expect_progress(self) -> None:
        if self._options.timeout is not None:
            # Whatever hangs, and whoever holds the interpreter's lock: this thread needs it not.
            faulthandler.dump_traceback_later(self._options.timeout, exit=True)

    def _step(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._options.report_every
        report = _empty_report()
        best = self._told.best
        for events in self._events:
            self._expect_progress()
            for event in events:
                if isinstance(event, EpochRecord):
                    report["records"].append(self._note(event))
                else:
                    report["results"].append(self._take(event))
            if time.monotonic() > deadline:
                report["done"] = False
                break
        return self._with_best(report, best, self._told.best)

    def _release(self, reason: str) -> dict[str, Any]:
        report = _empty_report()
        if self._training is None:
            if not self._told.records:  # it has not begun
                return self._with_best(report, None, None)
            # Only read from a checkpoint: a study resumed again and again must get on.
            report = self._step()
        elif not self._training.is_under_way:  # it ends by itself
            return self._step()
        if self._training is None or not self._training.is_under_way:
            return report
        if self._checkpoints is not None:
            self._checkpoints.write(self._training.snapshot(), self._told)
        best = self._told.best
        # Not among what is told: a checkpoint's training goes on with them.
        for result in self._training.release(reason):
            report["results"].append({**_fields(result), **self._place})
            best = self._better(result, best)
        return self._with_best({**report, "done": True}, self._told.best, best)

    def _with_best(
        self, report: dict[str, Any], before: TrialResult | None, best: TrialResult | None
    ) -> dict[str, Any]:
        """Adds to a report the best trial's weights, unless it was the best before."""
        if best is not None and best is not before:
            from safetensors.torch import save

            report["best"] = {"trial": best.trial, "weights": save(best.weights)}
        report["scores"] = [[ended["trial"], ended["score"]] for ended in self._told.results]
        return report

    def _note(self, record: EpochRecord) -> dict[str, Any]:
        fields = asdict(record)
        self._told.records.extend(fields.values())
        return fields

    def _take(self, result: TrialResult) -> dict[str, Any]:
        self._told.best = self._better(result, self._told.best)
        fields = _fields(result)
        self._told.results.append(fields)
        return {**fields, **self._place}

    def _better(self, result: TrialResult, best: TrialResult | None) -> TrialResult | None:
        """Returns the better of two, the first of which may not contend."""
        # What a checkpoint tells again has its weights if it was the best then.
        contends = result.weights and result.trial not in self._settled
        return result if contends and self._merit(result) < self._merit(best) else best

    def _merit(self, result: TrialResult | None) -> tuple[float, ...]:
        """Sorts the better trials first, as the ledger does."""
        if result is None:
            return NO_MERIT
        return merit(self._options.metric, result.metrics, result.best_epoch, result.trial)


def _empty_report() -> dict[str, Any]:
    return {"records": [], "results": [], "done": True}


def _fields(result: TrialResult) -> dict[str, Any]:
    """Returns a result as JSON values, without the weights."""
    fields = asdict(replace(result, weights={}))
    del fields["weights"]
    return {**fields, "outcome": result.outcome.value}


def _failed(number: int, reason: str) -> TrialResult:
    return TrialResult(number, Outcome.FAILED, reason, 0, 0, None, {}, 0.0)


def _place(device: str) -> dict[str, str]:
    """Names the host and the device of this process."""
    if device == "cuda":
        import torch

        device = f"cuda, {torch.cuda.get_device_name()}"
    return {"node": socket.gethostname(), "device": device}
