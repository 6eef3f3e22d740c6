"""What replicas must know and nobody else: the token of the endpoint, and the way into MLflow.

A cluster that was there before has another environment than the job, and whatever Ray hands to a
replica, be it a variable of its runtime environment, an argument or a configuration, it shows in
logs, in the dashboard and to `ray list`. So the job leaves them in a file that is the user's alone,
in a folder that goes with the job, and Ray sees its path. Replicas live where the job does.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from mlops.errors import SettingsError
from mlops.serving.endpoint.security import TOKEN_VARIABLE

URI_VARIABLE = "MLFLOW_TRACKING_URI"
# Of MLflow, and of the object stores in which it keeps models.
_PREFIXES = ("MLFLOW_", "AWS_")
# They go together: a name of the job's with a password of the cluster's would be wrong.
_ACCOUNT = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def leave(folder: Path, token: str | None, tracking_uri: str) -> Path:
    """Leaves for the replicas what this process has.

    Args:
        folder: The user's alone.
        token: What clients must send.
        tracking_uri: The MLflow store; a password may be in it.

    Returns:
        The file, of mode 0600.
    """
    known = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)}
    known[URI_VARIABLE] = tracking_uri
    if token is not None:
        known[TOKEN_VARIABLE] = token
    path = folder / "credentials.json"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(known, file)
    return path


def take_up(path: Path) -> None:
    """Makes them this process's own, instead of what its cluster was started with.

    Raises:
        SettingsError: They cannot be read, so nobody may be let in.
    """
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"a replica must be able to read the job's credentials, got {path} ({error}); run the "
            "job on the machine of the cluster's head, as the user who started Ray"
        ) from error
    replaced = [TOKEN_VARIABLE]
    if any(name in known for name in _ACCOUNT):
        replaced += _ACCOUNT
    for name in replaced:
        os.environ.pop(name, None)
    os.environ.update(known)
