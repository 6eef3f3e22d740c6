"""A client of the registered models alone: MLflow's public one makes an experiment when it is made.

Read in MLflow 3.17.2: tracking/_model_registry/client.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from mlflow.tracking._model_registry.client import ModelRegistryClient

    ModelsClient: TypeAlias = ModelRegistryClient | MlflowClient


def models_client(uri: str) -> ModelsClient:
    """Returns a client of the registered models of a store."""
    try:
        from mlflow.tracking._model_registry.client import ModelRegistryClient
    except ImportError:
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    return ModelRegistryClient(uri, uri)


def close_connections(client: ModelsClient) -> bool:
    """Closes what a client has open of a database; returns whether it could."""
    engine = getattr(getattr(client, "store", None), "engine", None)
    if engine is None:
        return False
    engine.dispose()
    return True
