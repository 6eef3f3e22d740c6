"""Ray Tune's loop, as packs need it: made of the inside of Ray 2.60, see `loop`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.tune.execution.class_cache import _ActorClassCache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache


class PackController(TuneController):
    """Tune's controller, which keeps workers, starts them at once and counts a death once.

    A study that is stopped waits until packs under way have released their trials: Tune would end
    them with what they have learned.

    It forgets packs that have ended, for Tune looks through all that it has at each step, and saves
    nothing: what a study is MLflow has on record.

    Tune ends all but one of those workers that have no next pack when they end one, and when a
    worker is free it calls off any of the new ones that it has asked for, that which is just being
    started too. Where packs end often, none gets ready then: 32 workers lost a third of their time.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._trials: list[Trial]
        self._class_cache = _PlainActorClasses()
        self._actor_cache = _IdleWorkers()
        self._resources_to_pending_trials: defaultdict[Any, _WaitingPacks] = defaultdict(
            lambda: _WaitingPacks(self._is_starting)
        )

    def on_step_end(self) -> None:
        """Forgets the packs that have ended."""
        super().on_step_end()
        if self._stopped_trials or self._failed_trials:
            self._live_trials -= self._stopped_trials | self._failed_trials
            self._trials = [trial for trial in self._trials if not trial.is_finished()]
            self._stopped_trials.clear()
            self._failed_trials.clear()

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Saves what `tune.run` wants to read when all is over, a file without trials."""
        if force:
            super().checkpoint(force, wait)

    def _mark_trial_to_checkpoint(self, trial: Trial) -> None:
        """Saves no trials."""

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        """Gives a pack an idle worker, if there is any and none of its own is being started."""
        return not self._is_starting(trial) and super()._maybe_reuse_cached_actor(trial)

    def _is_starting(self, trial: Trial) -> bool:
        """Tells whether a worker of its own is being started for a pack."""
        worker = self._trial_to_actor.get(trial)
        return worker is not None and worker not in self._actor_manager.pending_actors

    def _schedule_trial_train(self, trial: Trial) -> None:
        """Lets a pack train until its next report, or release its trials if the study stops."""
        if not self._stopper.stop_all():
            super()._schedule_trial_train(trial)
            return
        self._schedule_trial_task(
            trial=trial,
            method_name="release",
            args=(self._stopper.reason,),
            on_result=self._on_training_result,
            on_error=self._trial_task_failure,
        )

    def _stop_experiment_if_needed(self) -> None:
        """Ends what is not under way, and the rest when it has had its time."""
        if not self._stopper.stop_all():
            return
        self._search_alg.set_finished()
        for trial in [trial for trial in self._live_trials if not trial.is_finished()]:
            if trial.status != Trial.RUNNING or self._stopper.is_over:
                self._schedule_trial_stop(trial)

    def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
        """Takes note of a failure, but not of the same one again.

        That a worker has died between two packs is noticed when it gets the next one: Tune starts
        that pack again, then hears that it could not be handed over, and would give it up for good.
        It is no failure of that pack, which may be handed to all idle workers of a lost machine.
        """
        if trial in self._resetting_trials and isinstance(exception, RayActorError):
            trial.run_metadata.num_failures -= 1
        self._resetting_trials.discard(trial)
        is_waiting = trial.status == Trial.PENDING and trial not in self._trial_to_actor
        if not (is_waiting and isinstance(exception, RayActorError)):
            super()._trial_task_failure(trial, exception)


class _IdleWorkers(_ObjectCache):
    """Workers between two packs, all of which are kept until the search is over: they are alike."""

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keeps a worker."""
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Generator[Any, None, None]:
        """Yields workers to be ended: all of them or none."""
        if force_all:
            yield from super().flush_cached_objects(force_all=True)


class _WaitingPacks:
    """Packs that the next idle worker may take, the oldest first, as a set of Tune's.

    Args:
        is_starting: Tells whether a worker is being started for a pack, which then waits for it.
    """

    def __init__(self, is_starting: Callable[[Trial], bool]) -> None:
        self._is_starting = is_starting
        self._packs: dict[Trial, None] = {}

    def __bool__(self) -> bool:
        return any(not self._is_starting(pack) for pack in self._packs)

    def add(self, pack: Trial) -> None:
        self._packs[pack] = None

    def discard(self, pack: Trial) -> None:
        self._packs.pop(pack, None)

    def pop(self) -> Trial:
        pack = next(pack for pack in self._packs if not self._is_starting(pack))
        del self._packs[pack]
        return pack


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
