"""The experiment of a job: that of the run that `mlflow run` made, or one by its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlops.cluster.connection import lasting_folder
from mlops.errors import TrackingError, first_line
from mlops.tracking.store.uris import ELSEWHERE

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient


def active_run_from_environment() -> str | None:
    """Returns the run that `mlflow run` made for this process, if it did."""
    return os.environ.get("MLFLOW_RUN_ID") or None


def experiment_of_run(client: MlflowClient) -> Experiment | None:
    """Returns the experiment of the run that `mlflow run` made for this process, if it did.

    Raises:
        TrackingError: There is no such run.
    """
    run_id = active_run_from_environment()
    if run_id is None:
        return None
    from mlflow.exceptions import MlflowException

    try:
        return client.get_experiment(client.get_run(run_id).info.experiment_id)
    except MlflowException as error:
        raise TrackingError(
            f"MLFLOW_RUN_ID must name a run of the tracking store, got {run_id} "
            f"({first_line(error)}); unset MLFLOW_RUN_ID or {ELSEWHERE}"
        ) from error


def experiment_by_name(client: MlflowClient, name: str, in_file: bool) -> Experiment:
    """Returns an experiment, made where there is none.

    Args:
        client: Of the store.
        name: Its name.
        in_file: Whether the store is an SQLite file.

    Raises:
        TrackingError: It is deleted.
        MlflowException: The store refuses.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            # MLflow's own choice is ./mlruns, by its number.
            folder = lasting_folder() / "mlruns" / name
            elsewhere = in_file and lasting_folder() != Path.cwd()
            client.create_experiment(name, folder.as_uri() if elsewhere else None)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)
    if found is None:
        raise TrackingError(f"experiment `{name}` must exist once created, got none; try again")
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment `{name}` must be active, got one that is deleted; restore it with `mlflow "
            f"experiments restore --experiment-id {found.experiment_id}`, or name another one"
        )
    return found
