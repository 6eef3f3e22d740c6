"""A Ray cluster of one machine with a token, and those who have it or not."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from ray.job_submission import JobSubmissionClient
from servers import RayHead

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """A head with a token, and the environment of somebody who has it."""

    head: RayHead
    environment: dict[str, str]

    @property
    def server(self) -> str:
        return f"http://127.0.0.1:{self.head.dashboard}"

    @property
    def client(self) -> str:
        return f"ray://127.0.0.1:{self.head.client}"

    def jobs(self) -> JobSubmissionClient:
        """Ray's own client, in this process."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        return JobSubmissionClient(self.server, headers={"Authorization": f"Bearer {token}"})


def base_environment(folder: Path) -> dict[str, str]:
    """Without a token."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "MLOPS_"))}
    path = f"{BIN}:{os.environ['PATH']}"
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(home)}


def with_token(folder: Path, name: str) -> dict[str, str]:
    """With a token of its own."""
    file = folder / name
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    return {**base_environment(folder), "RAY_AUTH_TOKEN_PATH": str(file)}
