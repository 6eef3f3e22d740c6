"""What a study was begun with: its settings, as tags of its run.

They are there before the run counts as a study, so that no study can be without them, and carry a
digest, so that half of them are none. Studies of earlier versions have them as an artifact alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from mlops.errors import InputError
from mlops.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

# For people, and for versions before the tags.
SETTINGS = "settings.yaml"
SETTINGS_TAG = "settings"
# MLflow cuts values of more than 8,000 letters, earlier versions of 5,000.
LONGEST_PART = 4000


def settings_tags(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tags that hold a study's settings: the JSON in parts, then how many and a digest.

    Args:
        settings: JSON values.
    """
    text = json.dumps(settings)
    parts = [text[at : at + LONGEST_PART] for at in range(0, len(text), LONGEST_PART)]
    head = {"parts": len(parts), "sha256": _digest(text)}
    tags = {f"{SETTINGS_TAG}.{number}": part for number, part in enumerate(parts)}
    return {**tags, SETTINGS_TAG: json.dumps(head)}


def read_settings(store: Store, run: Run) -> dict[str, Any]:
    """Reads what a study was begun with.

    Args:
        store: Where the study is.
        run: Its run.

    Raises:
        InputError: They are not there, or not those that were recorded.
        TrackingError: The store cannot be asked.
    """
    tags = run.data.tags
    try:
        return _from_tags(tags) if SETTINGS_TAG in tags else _from_artifact(store, run)
    except (KeyError, ValueError, TypeError, yaml.YAMLError) as error:
        raise InputError(
            "study: must have the settings that it was begun with to be resumed, got "
            f"`{tags['study']}` without ({_reason(error)}); put them back, or begin another --study"
        ) from error


def _from_tags(tags: Mapping[str, str]) -> dict[str, Any]:
    head = json.loads(tags[SETTINGS_TAG])
    text = "".join(tags[f"{SETTINGS_TAG}.{number}"] for number in range(head["parts"]))
    if _digest(text) != head["sha256"]:
        raise ValueError("its tags have been changed")
    return dict(json.loads(text))


def _from_artifact(store: Store, run: Run) -> dict[str, Any]:
    content = store.read_bytes(run.info.run_id, SETTINGS)
    if content is None:
        raise ValueError(f"no {SETTINGS} in {run.info.artifact_uri}")
    settings = yaml.safe_load(content)
    # Whose driver died while it wrote the file may have half of it.
    if not settings or not content.endswith(b"\n"):
        raise ValueError(f"half of {SETTINGS} in {run.info.artifact_uri}")
    return dict(settings)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no tag {error}"
    return " ".join(str(error).split())[:200]
