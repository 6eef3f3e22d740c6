"""Ray Tune's loop over packs: by our own controller, where Tune's is the one that was read.

All that the rest of `mlops` takes from inside Tune is here and in `controller`.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import ray
import ray.tune.tune as tune_module
from ray.tune.experiment import Trial

from mlops.tuning.known import is_known

# The version of Ray whose inside `controller` is made for.
READ_IN = "2.60"
TUNES_OWN = tune_module.TuneController


def set_up(workers: int) -> None:
    """Lets all workers start at once, and leaves the record to MLflow.

    No result files, no notes on their absence.
    """
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)
    for name in ("ray.tune", "ray.tune.tune", "ray.tune.analysis", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    tune_module.TuneController = _controller()


def _controller() -> type[Any]:
    """Returns who runs the loop; with Tune's own, packs of a study that stops lose some epochs."""
    slower = "Tune's own loop trains, which starts and stops its workers more slowly"
    if not is_known("ray", READ_IN, slower):
        return TUNES_OWN
    from mlops.tuning.training.controller import PackController

    return PackController


def end_worker(trial: Trial) -> None:
    """Kills the process that has a pack, if there is any and Tune says which."""
    worker = getattr(getattr(trial, "temporary_state", None), "ray_actor", None)
    if worker is not None:
        ray.kill(worker)
