"""Models to serve, and a real server on loopback."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
import torch
import uvicorn

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.data.columns.features import FeatureEncoder
from mlops.nn.mlp import MLP
from mlops.nn.tasks.classification import Classification
from mlops.serving.champion.champion import Champion
from mlops.serving.champion.predictor import ServedModel
from mlops.serving.endpoint.app import make_app
from mlops.tracking import pyfunc
from mlops.tracking.models import registry
from mlops.tracking.models.model import LoggedModel, log_model
from mlops.tracking.store.store import Store, open_store

TOKEN = "a-token-of-the-tests"


@dataclass(frozen=True)
class EndpointSettings:
    host: str = "127.0.0.1"
    max_rows: int = 200
    max_body_bytes: int = 2**20
    max_in_flight: int = 8
    request_timeout: float = 10.0
    body_timeout: float = 5.0
    page: bool = False
    token_file: str | None = None


def mixed_table(n_rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Numbers with and without gaps, categories with gaps and rare ones, booleans."""
    draw = np.random.default_rng(seed)
    income = draw.lognormal(10, 1, n_rows).round(2)
    income[::7] = np.nan
    city = draw.choice(["Aix", "Brno", "Cork", "Dijon"], n_rows, p=[0.5, 0.3, 0.15, 0.05])
    return pd.DataFrame(
        {
            "age": draw.integers(18, 90, n_rows),
            "city": pd.Series(city, dtype=object).mask(draw.random(n_rows) < 0.1, None),
            "income": income,
            "member": draw.random(n_rows) < 0.5,
        }
    )


def numeric_table(n_columns: int = 20, n_rows: int = 60, seed: int = 0) -> pd.DataFrame:
    cells = np.random.default_rng(seed).normal(size=(n_rows, n_columns))
    return pd.DataFrame(cells, columns=[f"feature_{i}" for i in range(n_columns)])


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them, null for a gap."""
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def make_predictor(
    frame: pd.DataFrame,
    *,
    seed: int = 0,
    classes: tuple[Any, ...] = ("no", "yes"),
    hidden_dims: tuple[int, ...] = (8, 4),
    activation: str = "relu",
) -> pyfunc.Predictor:
    encoder = FeatureEncoder.fit(frame, max_levels=3)
    hyperparameters = Hyperparameters(hidden_dims=hidden_dims, activation=activation, dropout=0.0)
    mlp = MLP.of(hyperparameters, encoder.width, len(classes))
    mlp.reset(torch.Generator().manual_seed(seed)).eval()
    return pyfunc.Predictor(mlp, encoder, Classification(list(classes)), "target", hyperparameters)


def describe_columns(predictor: pyfunc.Predictor, frame: pd.DataFrame) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for column in predictor.encoder.columns:
        cells = frame[column.name]
        gaps = bool(cells.isna().any())
        if column.kind == "numeric":
            described[column.name] = {
                "kind": "numeric",
                "min": float(cells.min()),
                "max": float(cells.max()),
                "median": float(cells.median()),
                "whole": bool((cells.dropna() % 1 == 0).all()),
                "gaps": gaps,
            }
        else:
            described[column.name] = {
                "kind": "categorical",
                "levels": list(column.levels),
                "typical": column.levels[0],
                "gaps": gaps,
            }
    return described


def make_card(predictor: pyfunc.Predictor, frame: pd.DataFrame) -> dict[str, Any]:
    rows = frame.head(20)
    probabilities = predictor.probabilities(rows)
    labels = [predictor.task.classes[i] for i in probabilities.argmax(1)]
    return {
        "study": "a study",
        "data": {"name": "a table", "source": "synthetic", "digest": "0123456789abcdef"},
        "metrics": {"test_accuracy": 0.9, "test_f1": 0.89, "test_loss": 0.3},
        "confusion_matrix": [[5, 1], [0, 6]],
        "columns": describe_columns(predictor, frame),
        "sample": {
            "rows": rows_of(rows),
            "labels": labels,
            "probabilities": probabilities.tolist(),
        },
    }


def register(
    store: Store,
    frame: pd.DataFrame,
    *,
    name: str = "mlp",
    alias: str | None = "champion",
    change_card: Callable[[dict[str, Any]], object] = lambda card: None,
    **model: Any,
) -> tuple[int, LoggedModel]:
    """Registers an untrained model of a table, with its card."""
    predictor = make_predictor(frame, **model)
    card = make_card(predictor, frame)
    change_card(card)
    logged = log_model(
        store,
        store.client.create_run(store.experiment_id).info.run_id,
        replace(predictor, training_columns=("id", *frame.columns, predictor.target_name)),
        example=frame,
        card=card,
    )
    return registry.register(store, logged, name, alias), logged


def point(store: Store, version: int, alias: str = "champion", name: str = "mlp") -> None:
    store.client.set_registered_model_alias(name, alias, str(version))


@dataclass(frozen=True)
class Endpoint:
    """A server to ask."""

    url: str
    port: int
    champion: Champion | None = None
    token: str | None = None

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        content_type: str | None = "application/json",
        headers: dict[str, str] | None = None,
    ) -> requests.Response:
        sent = dict(headers or {})
        if body is not None and content_type is not None:
            sent["Content-Type"] = content_type
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        data = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        data = data.encode("utf-8") if isinstance(data, str) else data
        method = method or ("GET" if body is None else "POST")
        return requests.request(method, self.url + path, data=data, headers=sent, timeout=30)


@contextmanager
def serve(app: Any, **more: Any) -> Iterator[Endpoint]:
    """Runs an ASGI application in a thread, at a port that is free."""
    lifespan = more.pop("lifespan", "on")
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, lifespan=lifespan, log_level="error")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    if not server.started:
        raise RuntimeError("the server did not start")
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Endpoint(f"http://127.0.0.1:{port}", port, **more)
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def serve_champion(
    store: Store,
    settings: EndpointSettings | None = None,
    *,
    name: str = "mlp",
    poll_seconds: float = 3600.0,
    token: str | None = None,
) -> Iterator[Endpoint]:
    champion = Champion(store.uri, name, poll_seconds=poll_seconds)
    with pytest.MonkeyPatch.context() as patch:
        if token is not None:
            patch.setenv("MLOPS_SERVE_TOKEN", token)
        app = make_app(settings or EndpointSettings(), champion)
    with serve(app, champion=champion, token=token) as endpoint:
        yield endpoint


def store_in(folder: Path, empty: Path) -> Store:
    shutil.copy(empty, folder / "mlflow.db")
    here = Path.cwd()
    os.chdir(folder)  # where artifacts go
    try:
        return open_store(f"sqlite:///{folder}/mlflow.db")
    finally:
        os.chdir(here)


@dataclass(frozen=True)
class Served:
    """An endpoint for the whole session, and what it serves."""

    endpoint: Endpoint
    frame: pd.DataFrame
    logged: LoggedModel

    @property
    def model(self) -> ServedModel:
        champion = self.endpoint.champion
        assert champion is not None
        assert champion.model is not None
        return champion.model
