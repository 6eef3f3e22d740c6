"""The model registry: versions of the model `mlp`, and the aliases that say what they are for."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlops.errors import TrackingError
from mlops.tracking import pyfunc
from mlops.tracking.checksums import SHA256_TAG, verify
from mlops.tracking.model import PREDICTOR, LoggedModel
from mlops.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MODEL = "mlp"
CANDIDATE = "candidate"
CHAMPION = "champion"
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def register(
    store: Store,
    model: LoggedModel,
    name: str = MODEL,
    alias: str | None = CANDIDATE,
    tags: dict[str, str] | None = None,
    description: str | None = None,
) -> int:
    """Makes a model a version of a registered model and points an alias at it.

    The version carries the model's tag `sha256`, by which `load` checks its files.

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
            f"a model must be registered as `{name}`, got {str(error).splitlines()[0]}; see to the "
            "store"
        ) from error
    return int(made.version)


def load(store: Store, uri: str) -> pyfunc.Predictor:
    """Reads a registered model whose files are those that were registered.

    No code and no pickle of the model's folder is run.

    Args:
        store: Where the registry is.
        uri: `models:/mlp@candidate` or `models:/mlp/3`.

    Raises:
        TrackingError: There is no such version, or its files have been changed.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    match = _URI.fullmatch(uri)
    if match is None:
        raise TrackingError(
            f"a model must be named `models:/{MODEL}@{CANDIDATE}` or `models:/{MODEL}/1`, got {uri}"
        )
    name, alias, number = match.group("name", "alias", "version")
    client = store.client
    # A copy, so that what is read is what was checked.
    with tempfile.TemporaryDirectory(prefix="mlops-load-") as scratch:
        try:
            version = (
                client.get_model_version_by_alias(name, alias)
                if alias
                else client.get_model_version(name, number)
            )
            folder = download_artifacts(
                artifact_uri=client.get_model_version_download_uri(name, version.version),
                dst_path=scratch,
                tracking_uri=store.uri,
            )
        except (MlflowException, OSError) as error:
            raise TrackingError(
                f"{uri} must name a model of {store.display_uri}, got "
                f"{str(error).splitlines()[0]}; `python -m ray_jobs.tune` makes one"
            ) from error
        verify(Path(folder), version.tags.get(SHA256_TAG))
        return pyfunc.read(Path(folder) / PREDICTOR)


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
