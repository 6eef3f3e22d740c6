"""Answers: their bytes, and the one shape of a refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mlops.errors import Detail, RequestError
from mlops.serving.predictor import ServedModel

RETRY_SECONDS = 1
_BUSY = (429, 503)

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Answer(NamedTuple):
    """What is sent back.

    Attributes:
        status: The HTTP status.
        body: The whole body.
        content_type: Its type.
        headers: Further headers.
        rows: Rows that were scored.
        code: Of a refusal.
        version: The version that gave the answer; 0 where none did.
    """

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Sequence[tuple[bytes, bytes]] = ()
    rows: int = 0
    code: str = ""
    version: int = 0


def predictions(model: ServedModel, probabilities: np.ndarray) -> Answer:
    """Answers `/predict`: for each row the label, and the probability of each class."""
    names = model.class_names
    rows = [
        {"label": label, "probabilities": dict(zip(names, row, strict=True))}
        for label, row in zip(model.labels(probabilities), probabilities.tolist(), strict=True)
    ]
    body = msgspec.json.encode({"predictions": rows, "model": model.identity_json})
    return answered(model, body, rows=len(rows))


def answered(
    model: ServedModel, body: bytes, *, content_type: bytes = b"application/json", rows: int = 0
) -> Answer:
    """Returns what a model has answered."""
    return Answer(
        200, body, content_type, (model.version_header,), rows=rows, version=model.version
    )


def refusal(error: RequestError, model: ServedModel | None) -> Answer:
    """Answers with an error, in the shape all routes share but those of other protocols."""
    content = {
        "error": {
            "code": error.code,
            "message": error.message,
            "details": details_of(error.details),
        },
        "model": None if model is None else model.identity,
    }
    return refused(error, model, msgspec.json.encode(content))


def refused(
    error: RequestError,
    model: ServedModel | None,
    body: bytes,
    *,
    status: int | None = None,
    content_type: bytes = b"application/json",
) -> Answer:
    """Returns a refusal with a body of its own; `status` if other than the error's."""
    headers: list[tuple[bytes, bytes]] = [] if model is None else [model.version_header]
    if error.status in _BUSY:
        headers.append((b"retry-after", str(RETRY_SECONDS).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status == 405:
        headers.append((b"allow", b"POST"))
    version = 0 if model is None else model.version
    return Answer(
        status or error.status, body, content_type, headers, code=error.code, version=version
    )


def details_of(details: Sequence[Detail]) -> list[dict[str, Any]]:
    """Returns details as JSON values."""
    return [detail._asdict() for detail in details]


async def send_answer(send: Send, answer: Answer, *, last: bool = True) -> None:
    """Sends an answer.

    Args:
        send: ASGI's.
        answer: The answer.
        last: Whether the request is read to its end; if not, the connection is closed after it,
            and the caller has still to end the answer.
    """
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *answer.headers,
    ]
    if not last:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": not last})
