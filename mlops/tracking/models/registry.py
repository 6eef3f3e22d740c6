"""The model registry: versions of the model `mlp`, and the aliases that say what they are for."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.errors import TrackingError, first_line
from mlops.tracking import pyfunc
from mlops.tracking.models.checksums import SHA256_TAG, verify
from mlops.tracking.models.folder import PREDICTOR
from mlops.tracking.models.model import LoggedModel, models_of_run
from mlops.tracking.store.store import Registry, Store, explained

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MODEL = "mlp"
CANDIDATE = "candidate"
CHAMPION = "champion"
TRIAL_TAG = "trial"
# A trial that was interrupted and goes on may become a version anew, with other weights.
EPOCH_TAG = "best_epoch"


def register(
    store: Store,
    model: LoggedModel,
    name: str = MODEL,
    alias: str | None = CANDIDATE,
    tags: dict[str, str] | None = None,
    description: str | None = None,
) -> int:
    """Makes a model a version of a registered model and points an alias at it.

    The version carries the model's tag `sha256`, by which `load_version` checks its files.

    Args:
        store: Where the model is on record.
        model: The model.
        name: The registered model; made where there is none.
        alias: What the version is for; the alias moves here from any other version.
        tags: Further tags of the version.
        description: What the registry's page says of the version.

    Returns:
        The version's number.

    Raises:
        TrackingError: The store refuses.
    """
    from mlflow.exceptions import MlflowException

    client = store.client
    try:
        _ensure_registered(client, name)
        made = client.create_model_version(
            name,
            # The place rather than `models:/m-...`, which MLflow resolves by its global URI.
            source=model.location,
            run_id=model.run_id,
            tags={**(tags or {}), SHA256_TAG: model.sha256},
            description=description,
            model_id=model.model_id,
            await_creation_for=0,
        )
        if alias is not None:
            client.set_registered_model_alias(name, alias, made.version)
        _link_version(client, model.model_id, name, made.version)
    except MlflowException as error:
        raise TrackingError(
            f"a model must be registered as `{name}`, got {first_line(error)}; see to the store"
        ) from error
    return int(made.version)


@dataclass(frozen=True, eq=False)
class RegisteredModel:
    """A version of a registered model, read from files that are those that were registered.

    Attributes:
        name: The registered model.
        version: The version's number.
        run_id: The study's run.
        predictor: The model.
        card: What is to be known of it (`models.card`); empty if it was recorded without.
    """

    name: str
    version: int
    run_id: str
    predictor: pyfunc.Predictor
    card: dict[str, Any]


def load_version(store: Registry, name: str, which: int | str) -> RegisteredModel:
    """Reads a version; no code and no pickle of the model's folder is run.

    Args:
        store: Where the registry is.
        name: The registered model.
        which: The version's number, or an alias.

    Raises:
        TrackingError: There is no such version, or its files have been changed.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    client = store.models
    # A copy, so that what is read is what was checked.
    with tempfile.TemporaryDirectory(prefix="mlops-load-") as scratch:
        try:
            version = (
                client.get_model_version(name, str(which))
                if isinstance(which, int)
                else client.get_model_version_by_alias(name, which)
            )
            folder = download_artifacts(
                artifact_uri=client.get_model_version_download_uri(name, version.version),
                dst_path=scratch,
                tracking_uri=store.uri,
            )
        except (MlflowException, OSError) as error:
            kind = "version" if isinstance(which, int) else "alias"
            raise TrackingError(
                f"{kind} `{which}` of model `{name}` must be in {store.display_uri}, got "
                f"{first_line(error)}; `python -m ray_jobs.tune` makes one"
            ) from error
        verify(Path(folder), version.tags.get(SHA256_TAG))
        predictor, card = pyfunc.read(Path(folder) / PREDICTOR)
    return RegisteredModel(name, int(version.version), version.run_id, predictor, card)


def version_of(store: Registry, name: str, alias: str) -> int | None:
    """Returns the version an alias points at, None if there is none; one short query.

    Raises:
        TrackingError: The store does not answer.
    """
    from mlflow.exceptions import MlflowException

    with explained(store):
        try:
            aliases = store.models.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    return int(aliases[alias]) if alias in aliases else None


def run_of(store: Registry, name: str, version: int) -> str:
    """Returns the run that a version was registered by.

    Raises:
        TrackingError: The store does not answer, or has no such version.
    """
    with explained(store):
        return str(store.models.get_model_version(name, str(version)).run_id)


def move_alias(store: Registry, name: str, alias: str, version: int) -> None:
    """Points an alias at a version.

    Raises:
        TrackingError: The store refuses.
    """
    with explained(store):
        store.models.set_registered_model_alias(name, alias, str(version))


def registered(
    store: Store, name: str, run_id: str, trial: int, epoch: int
) -> tuple[int, str] | None:
    """Finds the version that a trial of a study has become, whose driver may have died over it.

    What was left to do is done: the alias `candidate`, and the link from the model.

    Args:
        store: Where the registry is.
        name: The registered model.
        run_id: The study's run.
        trial: The trial.
        epoch: Its best epoch; versions of before do not say theirs, which was final.

    Returns:
        The version and the model's URI; None if there is none.

    Raises:
        TrackingError: The store refuses.
    """
    client = store.client
    with explained(store):
        found = [
            version
            for version in client.search_model_versions(f"run_id = '{run_id}'")
            if version.name == name
            and version.tags.get(TRIAL_TAG) == str(trial)
            and version.tags.get(EPOCH_TAG, str(epoch)) == str(epoch)
        ]
        if not found:
            return None
        version = found[0]
        models = models_of_run(store, run_id)
        ids = [model.model_id for model in models if model.artifact_location == version.source]
        if not ids:  # somebody has deleted it
            return None
        model_id = ids[0]
        client.set_registered_model_alias(name, CANDIDATE, version.version)
        _link_version(client, model_id, name, version.version)
        return int(version.version), f"models:/{model_id}"


def _ensure_registered(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _link_version(client: MlflowClient, model_id: str, name: str, version: str) -> None:
    """Lets MLflow's page of the model show its version, as `mlflow.register_model` does."""
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    known = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    entry = {"name": name, "version": version}
    if not any(str(other["version"]) == str(version) for other in known):
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([*known, entry])})
