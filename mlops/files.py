"""Files that are written whole or not at all, on a disk or in an object store.

A path may be a URI, such as `s3://bucket/folder/table.parquet`: S3, `gs://` or `abfss://`. Who may
use it is told as usual, for S3 by `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, the machine's role...
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlops.errors import TableError, first_line

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# The folder that a file is in while it is written.
DRAFT = re.compile(r"\.writing-[a-z0-9_]{8}")
# Google's client would try for a quarter of an hour, deaf to Ctrl-C.
RETRY_SECONDS = 20.0


def is_uri(path: str | Path) -> bool:
    """Tells whether a path names something in an object store."""
    return "://" in str(path)


@contextmanager
def replacing(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yields a path to write to, which takes the place of `path` if all goes well.

    Args:
        path: The file, or its URI.
        overwrite: Whether it may take the place of a file that is there by then.

    Raises:
        TableError: The file cannot be written.
    """
    put = _uploading(str(path), overwrite) if is_uri(path) else _renaming(Path(path), overwrite)
    try:
        with put as unfinished:
            yield unfinished
    except OSError as error:
        raise TableError(
            f"`{path}` must be writable, got: {_reason(error)}; choose another place"
        ) from error


@contextmanager
def _renaming(path: Path, overwrite: bool) -> Iterator[Path]:
    path = path.resolve()  # a link stays one, and leads to the new file
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        if not overwrite:
            _put(unfinished, path)
            return
        with suppress(OSError):  # there may be none, or it is another user's
            shutil.copymode(path, unfinished)
        unfinished.replace(path)


def _put(draft: Path, path: Path) -> None:
    """Gives a file its name, unless there is one of that name."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise
    except OSError as error:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        draft.rename(path)


@contextmanager
def _uploading(uri: str, overwrite: bool) -> Iterator[Path]:
    store, key = _object_store(uri)
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        unfinished = Path(folder) / Path(key).name
        yield unfinished
        if not overwrite and exists(uri):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with unfinished.open("rb") as source, store.open_output_stream(key) as target:
            shutil.copyfileobj(source, target)


@contextmanager
def local_copy(path: str | Path) -> Iterator[Path]:
    """Yields a file or folder on a disk of this machine: itself, or a copy for the time being.

    Raises:
        FileNotFoundError: There is no such file in the object store.
        OSError: It cannot be fetched.
    """
    if not is_uri(path):
        yield Path(path)
        return
    store, key = _object_store(str(path))
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        copy = Path(folder) / Path(key).name
        for file, place in _files_of(store, key, copy):
            place.parent.mkdir(parents=True, exist_ok=True)
            with store.open_input_stream(file) as source, place.open("wb") as target:
                shutil.copyfileobj(source, target)
        yield copy


def _files_of(store: FileSystem, key: str, copy: Path) -> list[tuple[str, Path]]:
    """Returns the file, or the files of a folder, each with the place of its copy."""
    from pyarrow.fs import FileSelector, FileType

    if store.get_file_info(key).type is not FileType.Directory:
        return [(key, copy)]
    found = store.get_file_info(FileSelector(key, recursive=True))
    root = key.rstrip("/")
    return [
        (info.path, copy / info.path.removeprefix(f"{root}/"))
        for info in found
        if info.type is FileType.File
    ]


def remove(path: str | Path) -> None:
    """Removes a file.

    Raises:
        OSError: It cannot be removed, or is not there.
    """
    if is_uri(path):
        store, key = _object_store(str(path))
        store.delete_file(key)
    else:
        Path(path).unlink()


def exists(path: str | Path) -> bool:
    """Tells whether there is something of that name.

    Raises:
        OSError: The object store cannot be asked.
    """
    if not is_uri(path):
        return Path(path).exists()
    from pyarrow.fs import FileType

    store, key = _object_store(str(path))
    return bool(store.get_file_info(key).type is not FileType.NotFound)


def is_same(one: str, other: str) -> bool:
    """Tells whether two paths name the same file, if there is one.

    Raises:
        OSError: An object store cannot be asked.
    """
    if is_uri(one) and is_uri(other):
        (store, key), (other_store, other_key) = _object_store(one), _object_store(other)
        return bool(key == other_key and store.type_name == other_store.type_name)
    if is_uri(one) or is_uri(other):
        return False
    paths = Path(one), Path(other)
    return all(path.exists() for path in paths) and paths[0].samefile(paths[1])


def _object_store(uri: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem, LocalFileSystem

    if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in uri:
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={RETRY_SECONDS:g}"
    try:
        store, key = FileSystem.from_uri(uri)
    except ValueError as error:
        raise OSError(f"it begins with none of s3://, gs:// and abfss:// ({error})") from error
    if isinstance(store, LocalFileSystem):
        raise OSError("a path of this machine is given without file://")
    return store, key


def _reason(error: OSError) -> str:
    return error.strerror or first_line(error)
