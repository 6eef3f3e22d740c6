"""Real stores, registered models, and one endpoint for the tests of the protocols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from endpoint_harness import (
    Served,
    mixed_table,
    numeric_table,
    register,
    serve_champion,
    store_in,
)

from mlops.tracking.store.database import create_sqlite
from mlops.tracking.store.store import Store


@pytest.fixture(scope="session")
def empty_store_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database to copy: making one takes a second or two."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    create_sqlite(path)
    return path


@pytest.fixture
def store(empty_store_file: Path, tmp_path: Path) -> Store:
    return store_in(tmp_path, empty_store_file)


@pytest.fixture(scope="session")
def shared_store(empty_store_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_in(tmp_path_factory.mktemp("shared"), empty_store_file)


@pytest.fixture(scope="session")
def mixed(shared_store: Store) -> Iterator[Served]:
    """A model of numbers, categories and booleans."""
    frame = mixed_table()
    _, logged = register(shared_store, frame)
    with serve_champion(shared_store) as endpoint:
        yield Served(endpoint, frame, logged)


@pytest.fixture(scope="session")
def numeric(shared_store: Store) -> Iterator[Served]:
    """A model of 20 numeric columns, with classes 0, 1 and 2."""
    frame = numeric_table()
    _, logged = register(shared_store, frame, name="numbers", classes=(0, 1, 2), activation="gelu")
    with serve_champion(shared_store, name="numbers") as endpoint:
        yield Served(endpoint, frame, logged)
