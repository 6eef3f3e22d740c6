"""Whether a tracking server or a database's answers: found out within seconds, said in a line."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from mlops.errors import TrackingError, first_line
from mlops.tracking.store.uris import ELSEWHERE, is_database, without_password

T = TypeVar("T")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class Question(NamedTuple):
    """What a tracking server is asked: a path, and what goes with it."""

    path: str
    given: dict[str, str]


EXPERIMENTS = Question("/api/2.0/mlflow/experiments/get", {"experiment_id": "0"})
# Whom experiments are closed to may still read models.
MODELS = Question("/api/2.0/mlflow/registered-models/search", {"max_results": "1"})


def check_reachable(uri: str, deadline: float, question: Question) -> None:
    """Finds out within seconds what MLflow would find out in minutes.

    Args:
        uri: Of a store; a file needs no look.
        deadline: By `time.monotonic`, when it is given up.
        question: What a server is asked.

    Raises:
        TrackingError: It cannot be reached.
    """
    timeout = max(1.0, deadline - 1.0 - time.monotonic())
    if uri.startswith(("http:", "https:")):
        check_server(uri, timeout, question)
    elif is_database(uri):
        check_database(uri, timeout)


def check_server(uri: str, timeout: float, question: Question = EXPERIMENTS) -> None:
    """Asks a tracking server one question, without MLflow's minutes of retries.

    Args:
        uri: http or https.
        timeout: Seconds it may take altogether.
        question: The question.

    Raises:
        TrackingError: It does not answer, or not like an MLflow server that lets us in.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    def ask() -> tuple[int, bytes]:
        response = http_request(
            get_default_host_creds(uri),
            question.path,
            "GET",
            max_retries=0,
            # Once to connect and once to read, and a name may have two addresses.
            timeout=timeout / 3,
            raise_on_status=False,
            params=question.given,
        )
        return response.status_code, response.content

    status, content = _within(timeout, uri, ask)
    remedy = f"check the URI and the server, or {ELSEWHERE}"
    if status in (401, 403):
        remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
        remedy += "MLFLOW_TRACKING_TOKEN"
    if b"Invalid Host" in content:
        remedy = "it does not go by that name: start it with that one among its --allowed_hosts"
    if status != 200 and not (status == 404 and b"error_code" in content):
        raise TrackingError(
            f"the tracking server must answer as MLflow does, got HTTP {status} from "
            f"{without_password(uri)}; {remedy}"
        )


def check_database(uri: str, timeout: float) -> None:
    """Connects to a database server once, without MLflow's minutes of retries.

    Args:
        uri: postgresql, mysql or mssql, with or without a driver's name.
        timeout: Seconds it may take altogether.

    Raises:
        TrackingError: Its driver is not installed, or it does not answer, or refuses us.
    """
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri)
    except ImportError as error:
        raise TrackingError(
            f"the driver of a database must be installed, got {without_password(uri)} "
            f"({first_line(error)}); install it with pip, or {ELSEWHERE}"
        ) from error

    def connect() -> None:
        port = engine.url.port or _PORTS.get(engine.url.get_backend_name())
        if engine.url.host and port:
            socket.create_connection((engine.url.host, port), timeout / 2).close()
        try:
            engine.connect().close()
        finally:
            engine.dispose()

    _within(timeout, uri, connect)


def _within(timeout: float, uri: str, ask: Callable[[], T]) -> T:
    """Calls `ask` in a thread that is left behind when time is up: name look-up has no limit."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            answers.append(ask())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target, name="mlops-probe", daemon=True)
    thread.start()
    thread.join(timeout)
    if answers:
        return answers[0]
    reason = _root_of(errors[0]) if errors else f"no answer within {timeout:.0f} s"
    raise TrackingError(
        f"the tracking server must be reachable, got {without_password(uri)} ({reason}); start it, "
        f"or {ELSEWHERE}"
    ) from (errors[0] if errors else None)


def _root_of(error: BaseException) -> str:
    """Returns the first line of the error that started a chain."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return first_line(error)
