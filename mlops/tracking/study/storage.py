"""The folder of a study, and what in it is the study's: the rest is the user's and stays.

A storage folder may be one that users keep other things in, also under a study's name. So files are
told by names that no other program gives, and folders are removed by those who made them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from mlops.cluster.connection import lasting_folder
from mlops.errors import InputError
from mlops.files import DRAFT, is_uri

RECORD = "record.jsonl"
DEFAULT_STORAGE = "studies"
# Where the study's run has the weights of trials that were the best when they ended.
WEIGHTS_FOLDER = "best"
# Where folder names may have 255 bytes, this leaves room for ` of ` and a run's id.
LONGEST_NAME = 200
# A checkpoint's metadata have it.
FACTS = "facts"

_WEIGHTS = re.compile(r"trial-\d{4,}\.(safetensors|unfinished)")
_CHECKPOINT = re.compile(r"pack-\d+\.safetensors")
_PROBE = re.compile(r"probe-[0-9a-f]{16}(-[0-9a-f]{8})?")
# The record's first line names its run; of a driver that was killed it may be half there.
_BEGINNING = b'["study", "'
_LONGEST_HEADER = 2**24


def study_folder(storage: str | Path, study: str) -> Path:
    """Returns the folder of a study on this machine, whatever its name.

    An object store takes no lines one by one: then it is where it is by default.
    """
    folder = DEFAULT_STORAGE if is_uri(storage) else storage
    return lasting_folder() / Path(folder).expanduser() / _folder_name(study)


def checkpoint_folder(storage: str, study: str) -> str:
    """Returns the folder of a study, as a path or a URI, for what its workers keep."""
    if is_uri(storage):
        return f"{storage.rstrip('/')}/{_folder_name(study)}"
    return str(study_folder(storage, study))


def _folder_name(study: str) -> str:
    name = quote(study, safe=" ").replace(".", "%2E")
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(study.encode()).hexdigest()[:16]
    return f"{name[: LONGEST_NAME - 17]}-{digest}"


def weights_name(trial: int) -> str:
    """Names the file of a trial's weights."""
    return f"trial-{trial:04d}.safetensors"


def checkpoint_name(pack: int) -> str:
    """Names the file of a pack's checkpoint."""
    return f"pack-{pack}.safetensors"


def is_no_checkpoint(content: bytes) -> bool:
    """Tells that what a file of a checkpoint's name holds is tensors of another kind.

    Of what is no tensors at all, such as a checkpoint that was damaged, it cannot be told.
    """
    return FACTS not in _metadata(content, {FACTS: ""})


def _metadata(beginning: bytes, otherwise: dict[str, str]) -> dict[str, str]:
    length = int.from_bytes(beginning[:8], "little")
    with suppress(ValueError, AttributeError):
        return dict(json.loads(beginning[8 : 8 + length]).get("__metadata__", {}))
    return otherwise


def _is_checkpoint(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        beginning = file.read(8)
        length = min(int.from_bytes(beginning, "little"), _LONGEST_HEADER)
        return FACTS in _metadata(beginning + file.read(length), {})
    return False


def check_folder(folder: Path) -> None:
    """Checks that nothing in a study's folder would be taken for the study's that is not.

    Raises:
        InputError: Something would.
        OSError: The folder cannot be read.
    """
    path = folder / RECORD
    if not folder.is_dir():
        return
    beginning = b""
    if path.exists():
        with path.open("rb") as file:
            beginning = file.read(len(_BEGINNING))
    others = [path] if not _BEGINNING.startswith(beginning) else []
    if not beginning:
        others += [file for file in folder.iterdir() if _WEIGHTS.fullmatch(file.name)]
    if others:
        raise InputError(
            f"storage: must have no other's file where a study keeps its own, got {others[0]}; "
            "move it away, or name another --study or --storage"
        )


def files_of_study(folder: Path) -> list[Path]:
    """Returns the files of a study's folder that the study needs, its record last."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    weights = [file for file in found if _WEIGHTS.fullmatch(file.name)]
    checkpoints = [file for file in found if _CHECKPOINT.fullmatch(file.name)]
    record = [file for file in found if file.name == RECORD]
    return [*weights, *(file for file in checkpoints if _is_checkpoint(file)), *record]


def checkpoints_of_study(folder: Path) -> list[Path]:
    """Returns the checkpoints in a study's folder."""
    return [file for file in files_of_study(folder) if _CHECKPOINT.fullmatch(file.name)]


def remove_files(folder: Path, kept: Collection[Path] = ()) -> None:
    """Removes a study's files, and what its processes had under way when they were killed.

    What cannot be removed stays.

    Args:
        folder: The study's.
        kept: Files that are left.
    """
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if DRAFT.fullmatch(path.name):
                _remove_draft(path)
            elif _PROBE.fullmatch(path.name):
                path.unlink()
        for file in (file for file in files_of_study(folder) if file not in kept):
            file.unlink()


def _remove_draft(folder: Path) -> None:
    """Removes what a file of a study's was written in, and no other's, who may be writing."""
    with suppress(OSError):
        for file in folder.iterdir():
            if _CHECKPOINT.fullmatch(file.name) or _PROBE.fullmatch(file.name):
                file.unlink()
                folder.rmdir()


def missing_folders(folder: Path) -> int:
    """Returns how many folders of a path are not there: those who will be made with it.

    Raises:
        OSError: They cannot be.
    """
    paths = (folder, *folder.parents)
    missing = next(number for number, path in enumerate(paths) if path.exists())
    number = 0 if paths[missing].is_dir() else errno.ENOTDIR
    if not number and not os.access(paths[missing], os.W_OK | os.X_OK):
        number = errno.EACCES
    if number:
        raise OSError(number, os.strerror(number))
    return missing


def remove_folders(folder: Path, number: int) -> None:
    """Removes a folder and those it lies in, so many in all, as far as they are empty."""
    with suppress(OSError):
        for path in (folder, *folder.parents)[:number]:
            path.rmdir()
