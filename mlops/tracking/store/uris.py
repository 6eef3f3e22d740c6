"""What a tracking URI names, and how it is shown."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from mlops.cluster.connection import lasting_folder
from mlops.errors import TrackingError

ELSEWHERE = "set MLFLOW_TRACKING_URI to another store, or unset it to use sqlite:///mlflow.db"
_DATABASES = ("postgresql", "mysql", "mssql")
_IN_MEMORY = ("sqlite://", "sqlite:///", "sqlite:///:memory:")


def sqlite_path(uri: str) -> Path | None:
    """Returns the file of an SQLite URI, absolute; None for other URIs and in-memory databases."""
    rest = uri.removeprefix("sqlite:///")
    if rest == uri or rest in ("", ":memory:") or "?" in rest:
        return None
    return lasting_folder() / rest


def is_database(uri: str) -> bool:
    """Tells whether a URI names a database with a server of its own."""
    return uri.partition(":")[0].partition("+")[0] in _DATABASES


def lasting(uri: str) -> str:
    """Returns a URI of a store that outlives the job.

    Raises:
        TrackingError: It does not.
    """
    if uri in _IN_MEMORY:
        raise TrackingError(
            f"the tracking database must outlive the job, got {uri}, which lies in memory; "
            f"{ELSEWHERE}"
        )
    return uri


def without_password(uri: str) -> str:
    """Returns a URI that can be shown."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{parts.netloc.split('@')[-1]}"))
