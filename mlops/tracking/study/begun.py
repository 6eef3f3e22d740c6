"""What a study was begun with: its settings and how tables were read, as tags of its run.

They are there before the run counts as a study, so that no study can be without them, and the
settings carry a digest, so that half of them are none. A study that was begun when tables were read
or split otherwise is refused: its trials were of other rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops.data.versions import READING_VERSION, RELEASE, SPLIT_VERSION
from mlops.errors import InputError
from mlops.tracking.store.experiment import active_run_from_environment
from mlops.tracking.store.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

# For people.
SETTINGS = "settings.yaml"
SETTINGS_TAG = "settings"
# MLflow cuts values of more than 8,000 letters, earlier versions of 5,000.
LONGEST_PART = 4000
VERSIONS = {"reading_version": str(READING_VERSION), "split_version": str(SPLIT_VERSION)}
RELEASE_TAG = "release"
# Only a study's own run has it, and has it last: with it the run counts as a study.
PACKING_TAG = "packs_in_flight"
ENDS_TAG = "max_evals"
# Tells the run that this process has made from another study's of the same name.
ORIGIN_TAG = "origin"
# The last one that did not record it.
_FIRST_RELEASE = "0.1"


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


def version_tags() -> dict[str, str]:
    """Returns the tags that say how a study's table was read and split, and by which release."""
    return {**VERSIONS, RELEASE_TAG: RELEASE}


def make_run(store: Store, study: str, tags: Mapping[str, str]) -> Run:
    """Makes a run with its tags, unless a try whose answer was lost has done so.

    A store takes them with the run or, one of files, in this order. The last one makes it a study.

    Raises:
        InputError: The run that `mlflow run` made is another study's.
        Exception: What the store answers.
    """
    client = store.client
    given = active_run_from_environment()
    if given is not None:
        found = client.get_run(given).data.tags
        if PACKING_TAG in found and found.get(ORIGIN_TAG) != tags[ORIGIN_TAG]:
            raise InputError(
                f"MLFLOW_RUN_ID must name a run that is no study yet, got {given}, the study "
                f"`{found.get('study')}`; unset it"
            )
        client.update_run(given, name=study)
        for name, value in tags.items():
            client.set_tag(given, name, value)
        return client.get_run(given)
    query = f"tags.{ORIGIN_TAG} = '{tags[ORIGIN_TAG]}'"
    made = client.search_runs([store.experiment_id], query, max_results=1)
    return made[0] if made else client.create_run(store.experiment_id, tags=tags, run_name=study)


def check_versions(tags: Mapping[str, str]) -> None:
    """Checks that a study was begun when tables were read and split as they are now.

    Args:
        tags: Those of its run.

    Raises:
        InputError: It was not.
    """
    if any(tags.get(name) != version for name, version in VERSIONS.items()):
        release = tags.get(RELEASE_TAG, _FIRST_RELEASE)
        raise InputError(
            f"study: must have been begun by a release that reads and splits tables as {RELEASE} "
            f"does to be resumed, got `{tags['study']}` of release {release}; go on with it under "
            f"release {release}, or begin another --study"
        )


def read_settings(tags: Mapping[str, str]) -> dict[str, Any]:
    """Reads what a study was begun with.

    Args:
        tags: Those of its run.

    Raises:
        InputError: They are not there, or not those that were recorded.
    """
    try:
        return _from_tags(tags)
    except (KeyError, ValueError, TypeError) as error:
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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no tag {error}"
    return " ".join(str(error).split())[:200]
