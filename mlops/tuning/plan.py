"""What a study is to do, in parts that answer a question each, made of the settings' sections."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.configuration.space import SearchSpace
from mlops.settings.sections import DataSettings, ResourceSettings, TrackingSettings
from mlops.settings.study import PruningSettings, SearchSettings


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        default: Trial 0, and the values of what the space leaves out.
        space: The search space; None trains the default alone.
        max_evals: Trials.
        how: How configurations are chosen.
    """

    default: Hyperparameters
    space: SearchSpace | None = None
    max_evals: int = 1
    how: SearchSettings = field(default_factory=SearchSettings)


@dataclass(frozen=True)
class Training:
    """How it is trained.

    Attributes:
        metric: What trials are compared by.
        seed: Seed of search and training.
        pack_size: Trials a pack, or "auto".
        pruning: Of packs, at rungs.
    """

    metric: str = "val_accuracy"
    seed: int = 0
    pack_size: int | Literal["auto"] = 1
    pruning: PruningSettings = field(default_factory=PruningSettings)


@dataclass(frozen=True)
class Crew:
    """Who trains.

    Attributes:
        resources: Workers, and what each of them gets.
        address: The Ray cluster; by default what `RAY_ADDRESS` says, else this machine alone.
        max_failures: How often a pack whose worker died is started again.
        trial_timeout: Seconds that a worker may go without an epoch; None for ever.
    """

    resources: ResourceSettings = field(default_factory=ResourceSettings)
    address: str | None = None
    max_failures: int = 2
    trial_timeout: float | None = None


@dataclass(frozen=True)
class End:
    """When it ends, if not with its last trial.

    Attributes:
        time_budget: Seconds after which the study is ended.
        target: A score that ends the study.
        no_worker_timeout: Seconds without any worker after which the study stops.
    """

    time_budget: float | None = None
    target: float | None = None
    no_worker_timeout: float = 600.0


@dataclass(frozen=True)
class Keeping:
    """Where it is kept.

    Attributes:
        tracking: The MLflow store.
        settings: The job's settings, to be recorded, JSON values.
        storage: Folder for what is not in MLflow yet, and for checkpoints; a URI is for these.
        checkpoint_every: Seconds from one checkpoint of a pack to the next; None for none.
        resume: Go on with the study of this name.
        again: The command that resumes it.
    """

    tracking: TrackingSettings
    settings: Mapping[str, Any]
    storage: str = "studies"
    checkpoint_every: float | None = None
    resume: bool = False
    again: str = ""


@dataclass(frozen=True)
class Plan:
    """What a study is to do.

    Attributes:
        name: The study's name.
        data: The table that it learns from.
        search: What is searched.
        keeping: Where it is kept.
        training: How it is trained.
        crew: Who trains.
        end: When it ends.
    """

    name: str
    data: DataSettings
    search: Search
    keeping: Keeping
    training: Training = field(default_factory=Training)
    crew: Crew = field(default_factory=Crew)
    end: End = field(default_factory=End)


def name_by_time(job: str) -> str:
    """Returns a study's name for those who give none, such as `tune-20261123-142501-417`."""
    now = time.time()
    return (
        f"{job}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{int(now * 1000) % 1000:03}"
    )
