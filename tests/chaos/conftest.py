"""One study that nothing happened to, to compare others with, and a Ray cluster for many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos_harness import TRIALS, environment, finish, table
from servers import ray_head


@pytest.fixture(scope="package")
def cluster() -> Iterator[dict[str, str]]:
    """A running cluster, as variables: drivers come and go there quicker than with their own.

    Without a token, also where there is one in the user's home.
    """
    open_to_all = {"RAY_AUTH_MODE": "disabled"}
    with ray_head(environment(**open_to_all)) as head:
        yield {"RAY_ADDRESS": head.address, **open_to_all}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """The table of a study that ran through."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(folder)
    assert not (folder / "studies").exists()
    found = table(f"sqlite:///{folder}/mlflow.db")
    assert len(found) == TRIALS
    return found


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """The store that a study in `tmp_path` makes."""
    return f"sqlite:///{tmp_path}/mlflow.db"
