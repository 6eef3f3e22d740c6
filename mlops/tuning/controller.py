"""Ray Tune's loop, as packs need it."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.tune.execution.class_cache import _ActorClassCache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial


class PackController(TuneController):
    """Tune's controller, which counts a worker's death once and starts workers at once."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._class_cache = _PlainActorClasses()

    def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
        """Takes note of a failure, but not of the same one again.

        That a worker has died between two packs is noticed when it gets the next one: Tune starts
        that pack again, then hears that it could not be handed over, and would give it up for good.
        """
        self._resetting_trials.discard(trial)
        is_waiting = trial.status == Trial.PENDING and trial not in self._trial_to_actor
        if not (is_waiting and isinstance(exception, RayActorError)):
            super()._trial_task_failure(trial, exception)


class _PlainActorClasses(_ActorClassCache):
    """Actor classes without the environment variable that Tune adds for PyTorch Lightning.

    Actors that want no environment get the processes that Ray has started in advance, which saves
    1.2 s until the first trial.
    """

    def get(self, trainable_cls: type) -> Any:
        """Makes an actor class, once."""
        if trainable_cls not in self._cache:
            self._cache[trainable_cls] = ray.remote(trainable_cls)
        return self._cache[trainable_cls]
