"""Files that are written whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlops.errors import TableError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which takes the place of `path` if all goes well.

    Raises:
        TableError: The file cannot be written.
    """
    path = path.resolve()  # a link stays one, and leads to the new file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
            unfinished = Path(folder) / path.name
            yield unfinished
            unfinished.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise TableError(
            f"`{path}` must be writable, got: {reason}; choose another place"
        ) from error
