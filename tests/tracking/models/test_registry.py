from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.data.columns.features import FeatureEncoder
from mlops.errors import TrackingError
from mlops.nn.mlp import MLP
from mlops.nn.tasks.classification import Classification
from mlops.tracking.models import registry
from mlops.tracking.models.model import LoggedModel, log_model
from mlops.tracking.pyfunc import Predictor
from mlops.tracking.store.store import Store

ROWS = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": list("xyxy")})


def log(store: Store, seed: int = 0) -> LoggedModel:
    encoder = FeatureEncoder.fit(ROWS)
    hyperparameters = Hyperparameters(hidden_dims=(4,), dropout=0.0)
    mlp = MLP(encoder.width, 2, (4,)).reset(torch.Generator().manual_seed(seed))
    return log_model(
        store,
        store.client.create_run(store.experiment_id).info.run_id,
        Predictor(mlp, encoder, Classification(["no", "yes"]), "y", hyperparameters),
        example=ROWS,
    )


def test_the_alias_moves_to_the_last_version(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    models = [log(store, seed) for seed in (0, 1)]
    versions = [
        registry.register(store, model, tags={"data_digest": "d"}, description="of a toy")
        for model in models
    ]
    assert versions == [versions[0], versions[0] + 1]
    found = store.client.get_model_version_by_alias("mlp", "candidate")
    assert int(found.version) == versions[1]
    assert found.run_id == models[1].run_id
    assert found.tags["sha256"] == models[1].sha256
    assert found.tags["data_digest"] == "d"
    assert found.description == "of a toy"
    linked = store.client.get_logged_model(models[1].model_id).tags["mlflow.modelVersions"]
    assert linked.count("version") == 1

    by_alias = registry.load_version(store, "mlp", "candidate").predictor.predict(ROWS)
    by_number = registry.load_version(store, "mlp", versions[1]).predictor.predict(ROWS)
    first = registry.load_version(store, "mlp", versions[0]).predictor.predict(ROWS)
    pd.testing.assert_frame_equal(by_alias, by_number)
    assert not np.allclose(by_alias["probability_no"], first["probability_no"])

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    loaded = mlflow.pyfunc.load_model("models:/mlp@candidate")
    pd.testing.assert_frame_equal(loaded.predict(ROWS), by_alias)
    registry.load_version(store, "mlp", "candidate")  # MLflow's loader has left its marks


def test_a_version_may_go_without_an_alias(sqlite_store: Store) -> None:
    version = registry.register(sqlite_store, log(sqlite_store), "other name", alias=None)
    assert version == 1
    assert sqlite_store.client.get_registered_model("other name").aliases == {}
    assert registry.load_version(sqlite_store, "other name", 1).predictor.target_name == "y"


@pytest.mark.parametrize("which", ["champion", 7])
def test_a_model_that_is_not_there_is_said_in_a_line(which: int | str, store: Store) -> None:
    with pytest.raises(TrackingError, match=f"`{which}` of model `none`.*ray_jobs.tune") as caught:
        registry.load_version(store, "none", which)
    assert "\n" not in str(caught.value)
    assert registry.version_of(store, "none", "champion") is None


def test_the_version_of_an_alias(sqlite_store: Store) -> None:
    versions = [registry.register(sqlite_store, log(sqlite_store)) for _ in range(2)]
    assert registry.version_of(sqlite_store, "mlp", "candidate") == versions[1]
    assert registry.version_of(sqlite_store, "mlp", "champion") is None
    registry.move_alias(sqlite_store, "mlp", "candidate", versions[0])
    model = registry.load_version(sqlite_store, "mlp", "candidate")
    assert (model.version, model.name) == (versions[0], "mlp")


def plant(folder: Path, how: str) -> None:
    if how == "weights":
        weights = folder / "predictor" / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    elif how == "pickle":
        (folder / "data" / "model.pt2").unlink()
        (folder / "data" / "model.pth").write_bytes(b"cos\nsystem\n")
    elif how == "nothing left":
        (folder / "predictor" / "model.json").unlink()


@pytest.mark.parametrize("how", ["weights", "pickle", "nothing left"])
def test_a_model_changed_behind_the_registry_is_refused(how: str, sqlite_store: Store) -> None:
    model = log(sqlite_store)
    registry.register(sqlite_store, model)
    plant(Path(model.location), how)
    with pytest.raises(TrackingError, match="files must be those that were recorded"):
        registry.load_version(sqlite_store, "mlp", "candidate")


def test_a_version_that_somebody_else_made_is_refused(sqlite_store: Store) -> None:
    model = log(sqlite_store)
    client: Any = sqlite_store.client
    client.create_registered_model("mlp")
    client.create_model_version("mlp", source=model.location, await_creation_for=0)
    with pytest.raises(TrackingError, match="must carry the checksums recorded with it, got none"):
        registry.load_version(sqlite_store, "mlp", 1)
