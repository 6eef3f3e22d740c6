"""Files that are written whole or not at all, on a disk or in an object store.

A path may be a URI, such as `s3://bucket/folder/table.parquet`: S3, `gs://` or `abfss://`. Who may
use it is told as usual, for S3 by `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, the machine's role...
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlops.errors import TableError, first_line

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# Google's client would try for a quarter of an hour, deaf to Ctrl-C.
RETRY_SECONDS = 20.0


def is_uri(path: str | Path) -> bool:
    """Tells whether a path names something in an object store."""
    return "://" in str(path)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a path to write to, which takes the place of `path` if all goes well.

    Raises:
        TableError: The file cannot be written.
    """
    try:
        with _uploading(str(path)) if is_uri(path) else _renaming(Path(path)) as unfinished:
            yield unfinished
    except OSError as error:
        raise TableError(
            f"`{path}` must be writable, got: {_reason(error)}; choose another place"
        ) from error


@contextmanager
def _renaming(path: Path) -> Iterator[Path]:
    path = path.resolve()  # a link stays one, and leads to the new file
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)


@contextmanager
def _uploading(uri: str) -> Iterator[Path]:
    store, key = _object_store(uri)
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        unfinished = Path(folder) / Path(key).name
        yield unfinished
        with unfinished.open("rb") as source, store.open_output_stream(key) as target:
            shutil.copyfileobj(source, target)


@contextmanager
def local_copy(path: str | Path) -> Iterator[Path]:
    """Yields a file on a disk of this machine: the file itself, or a copy for the time being.

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
        with store.open_input_stream(key) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield copy


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
