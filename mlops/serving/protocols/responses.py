"""Answers: their bytes, and the one shape of a refusal.

An answer may be hundreds of times as long as its request, so its bytes are bounded too, and long
ones are written in parts: whoever writes JSON lets no other thread run meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from mlops.data.notes import Tally
from mlops.errors import Detail, RequestError
from mlops.serving.champion.predictor import ServedModel
from mlops.serving.protocols.predict import Request
from mlops.serving.rows.cells import Cells

RETRY_SECONDS = 1
PART_VALUES = 4096  # 1 ms of writing
LEAST_BYTES = 4  # of a number in an answer: `0.0,`
_BUSY = (429, 503)

Items = TypeVar("Items", np.ndarray, Sequence[str])


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
        tally: What was odd about the rows.
    """

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Sequence[tuple[bytes, bytes]] = ()
    rows: int = 0
    code: str = ""
    version: int = 0
    tally: Tally | None = None


def score(model: ServedModel, cells: Cells, request: Request, n_values: int) -> np.ndarray:
    """Returns the probability of each class: [N, C] float64; `cells` are used up.

    Args:
        model: The model.
        cells: Its rows.
        request: What they are of.
        n_values: Numbers of a row's answer.

    Raises:
        RequestError: The answer cannot but be too large.
    """
    if len(cells.numbers) * n_values * LEAST_BYTES > request.max_answer_bytes:
        raise too_large(request.max_answer_bytes)
    return model.probabilities(cells)


def predictions(model: ServedModel, probabilities: np.ndarray, tally: Tally, most: int) -> Answer:
    """Answers `/predict`: for each row the label, and the probability of each class.

    What was odd about the rows is said under `notes`; there are none where nothing was.

    Raises:
        RequestError: It would have more bytes than `most`.
    """
    rows = in_parts(probabilities, model.task.n_outputs, model.task.objects, most)
    content: dict[str, Any] = {"predictions": rows, "model": model.identity_json}
    if tally.counts:
        content["notes"] = tally.to_json()
    return answered(model, msgspec.json.encode(content), rows=len(probabilities), tally=tally)


def in_parts(
    items: Items, n_values: int, written: Callable[[Items], list[Any]], most: int
) -> list[Any] | msgspec.Raw:
    """Makes a list of JSON, a long one part by part.

    Args:
        items: What it is made of, one for one.
        n_values: Numbers that one of them becomes.
        written: Makes the list of some of them.
        most: Bytes that the whole may have.

    Returns:
        The list, or what it is written as.

    Raises:
        RequestError: It would have more bytes.
    """
    if len(items) * n_values <= PART_VALUES:
        return written(items)
    step = max(1, PART_VALUES // n_values)
    parts: list[bytes] = []
    room = most
    for start in range(0, len(items), step):
        parts.append(msgspec.json.encode(written(items[start : start + step]))[1:-1])
        room -= len(parts[-1]) + 1
        if room < 0:
            raise too_large(most)
    return msgspec.Raw(b"[" + b",".join(parts) + b"]")


def too_large(most: int) -> RequestError:
    """Returns the refusal of a request whose answer would have more bytes than `most`."""
    return RequestError(
        413,
        "too_large",
        f"an answer must have at most {most} bytes, got more; send fewer rows at a time, ask in "
        "Arrow, or score the table with `python -m ray_jobs.predict`",
    )


def answered(
    model: ServedModel,
    body: bytes,
    *,
    content_type: bytes = b"application/json",
    rows: int = 0,
    tally: Tally | None = None,
) -> Answer:
    """Returns what a model has answered."""
    headers = (model.version_header,)
    return Answer(200, body, content_type, headers, rows=rows, version=model.version, tally=tally)


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


def head(answer: Answer, *, last: bool = True) -> dict[str, Any]:
    """Returns the message that begins an answer; its body is still to be sent.

    Args:
        answer: The answer.
        last: Whether the request is read to its end; if not, the connection is closed after it.
    """
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *answer.headers,
    ]
    if not last:
        headers.append((b"connection", b"close"))
    return {"type": "http.response.start", "status": answer.status, "headers": headers}
