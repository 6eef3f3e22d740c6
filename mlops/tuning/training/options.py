"""What all packs of a study have in common: how they are trained, and on which rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

if TYPE_CHECKING:
    from mlops.data.dataset import Dataset
    from mlops.nn.tasks.task import Task

# Seconds between reports of a worker: people look once a second.
REPORT_SECONDS = 1.0
# Each costs the driver some milliseconds, while its worker waits: so there are fewer of each where
# there are many, and at most so many of all together.
FEW_WORKERS = 4
SELDOM_SECONDS = 8.0
REPORTS_A_SECOND = 20.0


def report_every(workers: int) -> float:
    """Returns the seconds from one report of a worker to the next, by how many there may be."""
    seldom = min(SELDOM_SECONDS, workers / FEW_WORKERS)
    return max(REPORT_SECONDS, seldom, workers / REPORTS_A_SECOND)


@dataclass(frozen=True)
class SharedRows:
    """The rows of a study in the object store.

    Attributes:
        arrays: Reference to (x_train, y_train, x_val, y_val), one copy a host.
        task: What is to be told of them.
    """

    arrays: ray.ObjectRef
    task: Task


def share(dataset: Dataset, task: Task) -> SharedRows:
    """Puts rows into the object store."""
    arrays = (dataset.x_train, dataset.y_train, dataset.x_val, dataset.y_val)
    return SharedRows(ray.put(arrays), task)


@dataclass(frozen=True)
class PackOptions:
    """What all packs of a study have in common.

    Attributes:
        seed: The study's seed.
        metric: What trials are compared by.
        eta: Prune to 1/eta at rungs; None for no pruning.
        min_epochs: The first rung.
        threads: Threads of a worker.
        gpus: What part of a GPU a worker has, and of its memory; it trains on cores with 0.
        precision: Of matrix products, a name in `precision.DTYPES`.
        checkpoint_every: Seconds from one checkpoint of a pack to the next; None for one only when
            the study stops.
        checkpoints: The folder for them, that all workers share, an absolute path or a URI; None
            for none.
        timeout: Seconds that a worker may go without an epoch before it is ended; None for ever.
        report_every: Seconds from one report of a pack to the next.
    """

    seed: int
    metric: str
    eta: int | None
    min_epochs: int
    threads: int
    gpus: float = 0.0
    precision: str = "float32"
    checkpoint_every: float | None = None
    checkpoints: str | None = None
    timeout: float | None = None
    report_every: float = REPORT_SECONDS
