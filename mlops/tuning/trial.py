"""A pack as a Ray Tune trial.

torch is imported by the worker only: the driver names this class and need not wait for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import ray
from ray import tune

from mlops.hyperparameters import Hyperparameters
from mlops.nn.records import METRICS, EpochRecord, TrialResult

# Seconds between reports: each costs the driver some milliseconds, and people look once a second.
REPORT_SECONDS = 1.0


@dataclass(frozen=True)
class SharedRows:
    """The rows of a study in the object store.

    Attributes:
        arrays: Reference to (x_train, y_train, x_val, y_val), one copy a host.
        n_classes: Number of classes.
    """

    arrays: ray.ObjectRef
    n_classes: int


@dataclass(frozen=True)
class PackOptions:
    """What all packs of a study have in common."""

    seed: int
    metric: str
    eta: int | None
    min_epochs: int
    threads: int
    device: str


class PackTrial(tune.Trainable):
    """Trains a pack, reporting by time; every report carries what happened since the last one.

    A report has `records` (`EpochRecord` fields) and `results` (`TrialResult` fields without the
    weights), and when one of them is the pack's best so far `best`: its number and the safetensors
    bytes of its weights. `scores` has [trial number, score or None] for each trial that has ended;
    the last report is `done`.
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
        self._rows: tuple[np.ndarray, ...] = ray.get(rows.arrays)
        self._n_classes = rows.n_classes
        self._options = options
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next pack in the same process, which saves starting one."""
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        from mlops.nn.training import Halving, fit

        trials = [trial for trial in config["trials"] if trial["duplicate_of"] is None]
        self._scores: list[list[Any]] = []
        self._best: TrialResult | None = None
        self._events: Iterator[EpochRecord | TrialResult] = iter(())
        if trials:
            options = self._options
            self._events = fit(
                [Hyperparameters.from_dict(trial["params"]) for trial in trials],
                self._rows[0],
                self._rows[1],
                self._rows[2],
                self._rows[3],
                self._n_classes,
                seed=options.seed,
                numbers=[trial["number"] for trial in trials],
                metric=options.metric,
                halving=Halving(options.eta, options.min_epochs) if options.eta else None,
                device=options.device,
            )

    def step(self) -> dict[str, Any]:
        """Trains for about a second."""
        deadline = time.monotonic() + REPORT_SECONDS
        report: dict[str, Any] = {"records": [], "results": [], "done": True}
        best = self._best
        for event in self._events:
            if isinstance(event, EpochRecord):
                report["records"].append(asdict(event))
            else:
                report["results"].append(self._take(event))
            if time.monotonic() > deadline:
                report["done"] = False
                break
        if self._best is not None and self._best is not best:
            from safetensors.torch import save

            weights = save(self._best.weights)
            report["best"] = {"trial": self._best.trial, "weights": weights}
        report["scores"] = list(self._scores)
        return report

    def _take(self, result: TrialResult) -> dict[str, Any]:
        self._scores.append([result.trial, result.score])
        if result.score is not None and self._order(result) > self._order(self._best):
            self._best = result
        fields = asdict(replace(result, weights={}))
        del fields["weights"]
        return {**fields, "outcome": result.outcome.value}

    def _order(self, result: TrialResult | None) -> tuple[float, int]:
        """Sorts better scores last, and of equal ones the lower number, as the ledger does."""
        if result is None or result.score is None:
            return (-math.inf, 0)
        sign = 1.0 if METRICS[self._options.metric] == "max" else -1.0
        return (sign * result.score, -result.trial)
