"""The MLflow store of a job: where it is, its experiment, its client.

Importing MLflow takes 2 s and its SQL store another 1.3 s, so all of MLflow is imported inside
functions; `open_store` may run in a background thread.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from mlops.errors import TrackingError, first_line
from mlops.tracking.store.database import check_is_there, check_sqlite, check_tables, create_sqlite
from mlops.tracking.store.experiment import experiment_by_name, experiment_of_run
from mlops.tracking.store.inside.models import close_connections, models_client
from mlops.tracking.store.probe import EXPERIMENTS, MODELS, check_reachable
from mlops.tracking.store.quiet import quiet
from mlops.tracking.store.uris import (
    ELSEWHERE,
    is_database,
    lasting,
    sqlite_path,
    without_password,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from mlops.tracking.store.inside.models import ModelsClient

T = TypeVar("T")

DEFAULT_URI = "sqlite:///mlflow.db"
EXPERIMENT = "mlops-classification"
# Seconds after which what a store has refused is tried again, and for how long.
RETRY_SECONDS = 1.0
PATIENCE_SECONDS = 30.0
# Requests to a server at the same time: its answers may take seconds.
SENDERS = 8


@dataclass(frozen=True)
class Registry:
    """An MLflow store that was reachable, as far as its registered models go.

    Attributes:
        uri: The tracking and registry URI; an SQLite path in it is absolute.
    """

    uri: str = field(repr=False)  # it may hold a password
    _file: dict[str, tuple[int, int]] = field(
        default_factory=dict, repr=False, compare=False, kw_only=True
    )

    @cached_property
    def models(self) -> ModelsClient:
        """A client of the registered models; that of the runs would make an experiment."""
        _prepare_client()
        return models_client(self.uri)

    def check_file(self) -> None:
        """Opens an SQLite file anew if another one has taken its place since the last look.

        Raises:
            TrackingError: It is gone, or cannot be opened anew: what is open of the one before
                would go on answering.
        """
        path = sqlite_path(self.uri)
        if path is None:
            return
        try:
            found = path.stat()
        except OSError as error:
            raise TrackingError(
                f"the tracking database must be there, got none at {path} ({error.strerror}); put "
                "it back"
            ) from error
        place = (found.st_dev, found.st_ino)
        if self._file.setdefault("place", place) != place:
            if not close_connections(self.models):
                raise TrackingError(
                    f"the tracking database must be the one that was opened, got another at {path}"
                    "; start this again"
                )
            self._file["place"] = place

    @property
    def display_uri(self) -> str:
        """The URI without a password."""
        return without_password(self.uri)


@dataclass(frozen=True)
class Store(Registry):
    """An MLflow store that was reachable, and an experiment in it.

    Attributes:
        experiment_name: Name of the experiment.
        experiment_id: Its id.
        artifact_location: Where its artifacts go.
    """

    experiment_name: str
    experiment_id: str
    artifact_location: str

    @cached_property
    def client(self) -> MlflowClient:
        """A client of this store, whatever the process's own tracking URI is."""
        return _client(self.uri)

    def read_bytes(self, run_id: str, path: str) -> bytes | None:
        """Reads an artifact of a run; None where there is none.

        Raises:
            TrackingError: The store cannot be asked.
        """
        with explained(self), tempfile.TemporaryDirectory() as folder:
            parent = str(PurePosixPath(path).parent)
            listed = self.client.list_artifacts(run_id, None if parent == "." else parent)
            if path not in [entry.path for entry in listed]:
                return None
            return Path(self.client.download_artifacts(run_id, path, folder)).read_bytes()


def prepare_environment(retries: int = 2) -> None:
    """Quietens MLflow and shortens its patience, unless the user has set otherwise.

    MLflow reads these from the environment, some when it is imported, and child processes should
    agree.

    Args:
        retries: How often MLflow repeats a request. None where something is created: a request
            whose answer was lost would be carried out twice.
    """
    # What it would log at length we raise in a line.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # MLflow would repeat a request seven times with doubling waits.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(retries))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def resolve_uri(uri: str | None = None) -> str:
    """Returns the tracking URI: MLFLOW_TRACKING_URI, else `uri`, else an SQLite file here.

    The path of an SQLite file is made absolute, so that it means the same from any folder.
    """
    chosen = os.environ.get("MLFLOW_TRACKING_URI") or uri or DEFAULT_URI
    path = sqlite_path(chosen)
    return chosen if path is None else f"sqlite:///{path}"


def open_store(
    uri: str | None = None, experiment: str = EXPERIMENT, *, timeout: float = 15.0
) -> Store:
    """Creates or checks the tracking database and the experiment.

    Harmless when repeated, and when several processes do it at once. Under `mlflow run` the
    experiment is that of the run made there, whatever `experiment` says. Artifacts go where MLflow
    puts them: for a database into `./mlruns` of the folder in which the experiment is created,
    recorded as an absolute path.

    Args:
        uri: The setting; MLFLOW_TRACKING_URI wins over it.
        experiment: The experiment's name.
        timeout: Seconds until a server that does not answer is given up.

    Raises:
        TrackingError: The store cannot be reached or used.
    """
    started = time.monotonic()
    chosen = lasting(resolve_uri(uri))
    path = sqlite_path(chosen)
    if path is not None:
        check_sqlite(path, timeout)
    with _usable(chosen):
        if path is not None:
            create_sqlite(path)
        else:
            check_reachable(chosen, started + timeout, EXPERIMENTS)
        client = _client(chosen)
        found = experiment_of_run(client) or experiment_by_name(
            client, experiment, path is not None
        )
    return Store(chosen, found.name, found.experiment_id, found.artifact_location)


def open_registry(uri: str | None = None, *, timeout: float = 15.0) -> Registry:
    """Opens a store for its registered models: nothing is made there, whatever its experiments.

    Args:
        uri: The setting; MLFLOW_TRACKING_URI wins over it.
        timeout: Seconds until a server that does not answer is given up.

    Raises:
        TrackingError: The store is not there, or cannot be reached or read.
    """
    started = time.monotonic()
    chosen = lasting(resolve_uri(uri))
    path = sqlite_path(chosen.partition("?")[0])
    if path is not None:
        check_is_there(path)
    with _usable(chosen):
        from mlflow.utils.file_utils import local_file_uri_to_path
        from mlflow.utils.uri import is_local_uri

        if is_local_uri(chosen):
            check_is_there(Path(local_file_uri_to_path(chosen)) / "models")
        elif path is None:
            check_reachable(chosen, started + timeout, MODELS)
        if path is not None or is_database(chosen):
            check_tables(chosen, path)
        registry = Registry(chosen)
        _ = registry.models
    return registry


@contextmanager
def _usable(uri: str) -> Iterator[None]:
    prepare_environment()
    import mlflow.exceptions

    with quiet():
        try:
            yield
        except mlflow.exceptions.MlflowException as error:
            raise TrackingError(
                f"the tracking store must be usable, got {without_password(uri)} "
                f"({first_line(error)}); {ELSEWHERE}"
            ) from error


@contextmanager
def explained(store: Registry) -> Iterator[None]:
    """Turns what goes wrong while something is recorded into an error of ours.

    Raises:
        TrackingError: The store does not take it: a server gone, a disk full.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(
            f"the MLflow store must accept the record, got from {store.display_uri} "
            f"({first_line(error)}); see to the store, and to room on its disk"
        ) from error


def patiently(store: Registry, action: Callable[[], T], seconds: float | None = None) -> T:
    """Does what may be done twice, again while the store does not take it.

    Args:
        store: Which store.
        action: What is to be done.
        seconds: For how long; by default `PATIENCE_SECONDS`.

    Raises:
        TrackingError: It still does not.
    """
    give_up = time.monotonic() + (PATIENCE_SECONDS if seconds is None else seconds)
    while True:
        try:
            with explained(store):
                return action()
        except TrackingError:
            if time.monotonic() > give_up:
                raise
        time.sleep(RETRY_SECONDS)


def _prepare_client() -> None:
    prepare_environment()
    # It prints the traceback of what it also raises, of a disk that is full, say.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _client(uri: str) -> MlflowClient:
    _prepare_client()
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)
