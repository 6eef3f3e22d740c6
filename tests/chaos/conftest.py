"""One study that nothing happened to, to compare others with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chaos_harness import TRIALS, finish, table


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
