"""One working folder, with one store in it, for the jobs of a module, and one cluster for all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster, with_token
from servers import ray_head


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder of the module's own, with one MLflow store in it."""
    path = tmp_path_factory.mktemp("work")
    before = Path.cwd()
    os.chdir(path)
    yield path
    os.chdir(before)


@pytest.fixture(autouse=True)
def in_folder(clean_environment: None, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Tests of one module share its folder, and so its store."""
    monkeypatch.chdir(folder)


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with a token."""
    environment = with_token(tmp_path_factory.mktemp("cluster"), "token")
    with ray_head({**environment, "RAY_AUTH_MODE": "token"}) as head:
        yield Cluster(head, environment)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tables, which is not part of the project."""
    here = Path(__file__).parents[2]
    path = Path(os.environ.get("MLOPS_SHARED_DATA", here.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip("the shared tables are not here")
    return path
