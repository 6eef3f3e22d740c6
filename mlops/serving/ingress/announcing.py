"""What the job serve tells of its endpoint: where it is, and which model answers."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any

from mlops.errors import ServingError
from mlops.serving.endpoint.security import TOKEN_VARIABLE
from mlops.serving.ingress.address import Door
from mlops.settings.serving import ServeSettings

# Seconds between looks at whether Ray is still there: without it nothing that dies is replaced.
_WATCH_SECONDS = 5.0


def announcement(settings: ServeSettings, door: Door) -> str:
    """Says where the endpoint is and how to ask it, by a typical row of its model."""
    model = door.model()
    replicas = "1 replica" if settings.replicas == 1 else f"{settings.replicas} replicas"
    who = "this machine only" if door.is_local else "other machines"
    lines = [
        f"serving {settings.tracking.model_name}@{settings.alias} at {door.url}, {replicas}; "
        f"open to {who}" + (", with the token" if door.token else "")
    ]
    lines.append(f"  {_served(model)}")
    body = json.dumps({"rows": [model.get("typical_row", {})]}, ensure_ascii=False)
    headers = ["-H 'Content-Type: application/json'"]
    if door.token:
        token = f"$(cat {shlex.quote(str(settings.token_file))})"
        if TOKEN_VARIABLE in os.environ:
            token = f"${TOKEN_VARIABLE}"
        headers.append(f'-H "Authorization: Bearer {token}"')
    lines += [
        f"  ask:   curl {' '.join(headers)} -d {shlex.quote(body)} {door.url}/predict",
        f"  read:  {door.url}/docs and {door.url}/model",
        "  stop:  Ctrl-C",
    ]
    return "\n".join(lines)


def _served(model: Mapping[str, Any]) -> str:
    """Says which version answers, by what `/model` answers."""
    if error := model.get("error"):
        return f"no predictions: {error['message']}"
    refused, trouble = model.get("refused"), model.get("registry_error")
    parts = [f"model: version {model.get('version')}"]
    parts += [f"version {refused['version']} was refused: {refused['reason']}"] if refused else []
    parts += [f"the registry does not answer: {trouble}"] if trouble else []
    return "; ".join(parts)


def watch(door: Door) -> None:
    """Tells of changes of the model until interrupted.

    Raises:
        ServingError: Ray ended before.
    """
    told = seen = _served(door.model())
    try:
        while ray_lives():
            time.sleep(_WATCH_SECONDS)
            # Twice the same: while replicas change over, either may answer.
            before, seen = seen, _served(door.model())
            if before == seen != told:
                print(seen, file=sys.stderr, flush=True)
                told = seen
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr, flush=True)
    else:
        raise ServingError(
            "Ray must run as long as the endpoint, got its end; see /tmp/ray/session_latest/logs "
            "and start the endpoint again"
        )


def ray_lives() -> bool:
    """Tells whether Ray is connected and a machine of it alive."""
    import ray

    try:
        return ray.is_initialized() and any(node["Alive"] for node in ray.nodes())
    except (ray.exceptions.RayError, RuntimeError, OSError):
        return False
