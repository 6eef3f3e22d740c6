"""A study's best model on record: its files uploaded, with its scores; earlier ones found."""

from __future__ import annotations

import copy
import io
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.configuration.hyperparameters import NAMES
from mlops.errors import TrackingError
from mlops.tracking.models.checksums import SHA256_TAG, write_checksums
from mlops.tracking.models.folder import export, write_folder
from mlops.tracking.pyfunc import Predictor
from mlops.tracking.store.store import SENDERS, Store, explained, prepare_environment

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import LoggedModel as MlflowModel
    from mlflow.models import Model
    from mlflow.tracking import MlflowClient

NAME = "model"


@dataclass(frozen=True)
class LoggedModel:
    """A model on record.

    Attributes:
        uri: `models:/m-...`, for MLflow's loaders.
        model_id: MLflow's id of it.
        run_id: The run that made it.
        location: Where its files are.
        sha256: SHA-256 of its `checksums.json`.
    """

    uri: str
    model_id: str
    run_id: str
    location: str
    sha256: str


def warm_up() -> None:
    """Does what the first `log_model` of a process spends most of its time on: imports.

    Measured: `torch.export` takes 2.5 s of CPU the first time, `log_model` after it 0.4 s. So call
    this in a thread while workers train.
    """
    import torch

    tiny = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    torch.export.save(export(tiny, 2), io.BytesIO())
    prepare_environment()
    import mlflow.models  # noqa: F401


def log_model(
    store: Store,
    run_id: str,
    predictor: Predictor,
    *,
    example: pd.DataFrame,
    metrics: dict[str, float] | None = None,
    card: dict[str, Any] | None = None,
) -> LoggedModel:
    """Records a trained model under the name `model` of a run.

    Args:
        store: Where the run is.
        run_id: The study's run.
        predictor: The model; it is not changed.
        example: Some raw rows; the first few are stored with the model.
        metrics: The model's scores, recorded both on the run and on the model: whoever calls this
            need not log them again. The step is 0 for a run's first model, 1 for the next.
        card: What is to be known of the model (`mlops.tracking.models.card`).

    Raises:
        TrackingError: The model could not be stored; the record of it is marked as failed.
    """
    prepare_environment()
    predictor = replace(predictor, mlp=copy.deepcopy(predictor.mlp).cpu().eval())
    with tempfile.TemporaryDirectory(prefix="mlops-model-") as scratch:
        folder = Path(scratch) / NAME
        model = write_folder(folder, predictor, example, card or {})
        return _record(store, run_id, folder, model, predictor, metrics or {})


def _record(
    store: Store,
    run_id: str,
    folder: Path,
    model: Model,
    predictor: Predictor,
    metrics: dict[str, float],
) -> LoggedModel:
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.exceptions import MlflowException

    client = store.client
    params = {key: str(value) for key, value in predictor.hyperparameters.to_dict().items()}
    step = _next_step(client, run_id, metrics)
    entry = client.create_logged_model(
        store.experiment_id, NAME, source_run_id=run_id, params=params, model_type="classifier"
    )
    model.model_id = model.model_uuid = entry.model_id
    model.run_id, model.artifact_path = run_id, entry.artifact_location
    model.save(str(folder / "MLmodel"))
    sha256 = write_checksums(folder)
    try:
        _upload(store, entry.model_id, folder)
        client.set_logged_model_tags(entry.model_id, {SHA256_TAG: sha256})
        client.log_outputs(run_id, [LoggedModelOutput(entry.model_id, step=step)])
        now = int(time.time() * 1000)
        scores = [
            Metric(key, value, now, step, model_id=entry.model_id, run_id=run_id)
            for key, value in metrics.items()
        ]
        client.log_batch(run_id, metrics=scores)
        client.finalize_logged_model(entry.model_id, "READY")
    except (MlflowException, OSError) as error:
        with suppress(MlflowException):
            client.finalize_logged_model(entry.model_id, "FAILED")
        raise TrackingError(
            f"the model must be stored in {entry.artifact_location}, got {error}; see to the store"
        ) from error
    uri = f"models:/{entry.model_id}"
    return LoggedModel(uri, entry.model_id, run_id, entry.artifact_location, sha256)


def _upload(store: Store, model_id: str, folder: Path) -> None:
    """Uploads a model's files, to a server several at a time: each of its answers may take long."""
    client = store.client
    if not store.uri.startswith("http"):
        client.log_model_artifacts(model_id, str(folder))
        return

    def put(file: Path) -> None:
        parent = file.relative_to(folder).parent.as_posix()
        client.log_model_artifact(model_id, str(file), None if parent == "." else parent)

    first, *rest = [path for path in folder.rglob("*") if path.is_file()]
    put(first)  # MLflow asks for the place once, and keeps it
    with ThreadPoolExecutor(SENDERS, "mlflow-upload") as senders:
        list(senders.map(put, rest))


def _next_step(client: MlflowClient, run_id: str, metrics: dict[str, float]) -> int:
    """The step after those of the run's earlier models."""
    known = metrics.keys() & client.get_run(run_id).data.metrics.keys()
    histories = [client.get_metric_history(run_id, key) for key in known]
    return max((metric.step for history in histories for metric in history), default=-1) + 1


def discard_unregistered(store: Store, run_id: str) -> None:
    """Deletes the models of a run whose driver died before it had registered them.

    Raises:
        TrackingError: The store refuses.
    """
    client = store.client
    with explained(store):
        versions = client.search_model_versions(f"run_id = '{run_id}'")
        kept = {version.source for version in versions}
        for model in models_of_run(store, run_id):
            # What users have logged there has not these params.
            is_ours = model.name == NAME and set(model.params) == set(NAMES)
            if is_ours and model.artifact_location not in kept:
                client.delete_logged_model(model.model_id)


def models_of_run(store: Store, run_id: str) -> list[MlflowModel]:
    """Returns the models that were logged by a run."""
    query = f"source_run_id = '{run_id}'"
    return list(store.client.search_logged_models([store.experiment_id], filter_string=query))
