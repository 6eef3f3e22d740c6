"""How the routes that predict are answered, and where: on the event loop or in a thread.

What is little work is done where it arrives, one after the other: handing it to a thread takes
longer. The rest is done in threads, `max_in_flight` at a time or waiting. A body of many bytes is
much work, and so is one that turns out, once it is decoded, to have many rows for its model
(`ServedModel.rows_at_once`): such a one is begun again in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from mlops.errors import RequestError
from mlops.serving.champion.champion import Champion
from mlops.serving.champion.predictor import ServedModel
from mlops.serving.endpoint.traffic import Limits, busy, late
from mlops.serving.protocols.arrow import read_arrow, write_arrow
from mlops.serving.protocols.mlflow_scoring import invocations, refuse_invocations
from mlops.serving.protocols.open_inference import infer, is_infer, refuse_infer
from mlops.serving.protocols.predict import ARROW, Request, media_type, read_predict
from mlops.serving.protocols.responses import (
    Answer,
    answered,
    predictions,
    refusal,
    score,
    too_large,
)
from mlops.serving.rows.cells import ForAnotherThread, RowLimits

INLINE_BYTES = 65_536  # 1 ms to decode
ARROW_ROWS = 30  # a stream costs as much beside its rows as so many rows
THREADS = 2
logger = logging.getLogger(__name__)


class Route(NamedTuple):
    """How a path is answered.

    Attributes:
        name: The path as a pattern, for the metrics.
        handle: Makes the answer.
        refuse: Makes the answer to what cannot be answered.
    """

    name: str
    handle: Callable[[ServedModel, Request], Answer]
    refuse: Callable[[RequestError, ServedModel | None], Answer]


def predict(model: ServedModel, request: Request) -> Answer:
    """Answers `/predict`, Arrow with Arrow and all else with JSON.

    Raises:
        RequestError: The body cannot be read, or the answer would be too large.
        ForAnotherThread: It is too much work for this one.
    """
    if media_type(request.content_type) != ARROW:
        cells = read_predict(request, model.columns)
        probabilities = score(model, cells, request, model.task.n_outputs)
        return predictions(model, probabilities, cells.tally, request.max_answer_bytes)
    limits = RowLimits(request.limits.most, request.limits.here - ARROW_ROWS)
    cells = read_arrow(request.body, model.columns, limits)
    probabilities = score(model, cells, request, model.task.n_outputs)
    body = write_arrow(model, probabilities)
    return answered(
        model, body, content_type=ARROW.encode(), rows=len(probabilities), tally=cells.tally
    )


ROUTES = {
    "/predict": Route("/predict", predict, refusal),
    "/invocations": Route("/invocations", invocations, refuse_invocations),
}
INFER = Route("/v2/models/{name}/infer", infer, refuse_infer)


def route_of(path: str) -> Route | None:
    """Returns how a path is answered, None if it is not one that predicts."""
    return ROUTES.get(path) or (INFER if is_infer(path) else None)


class Handler:
    """Makes the answers of one process; to be asked on its event loop.

    Args:
        champion: Holds the model.
        limits: What a request may take.
    """

    def __init__(self, champion: Champion, limits: Limits) -> None:
        self._champion = champion
        self._limits = limits
        self._in_flight = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="predict")

    async def answer(self, route: Route, body: bytes, content_type: str, path: str) -> Answer:
        """Returns the answer to a request whose body is there; raises nothing."""
        if len(body) <= INLINE_BYTES:
            try:
                return self._handle(route, body, content_type, path)
            except ForAnotherThread:
                pass
        if self._in_flight >= self._limits.max_in_flight:
            return route.refuse(busy(), self._champion.model)
        loop = asyncio.get_running_loop()
        seconds = self._limits.request_timeout
        deadline = time.monotonic() + seconds
        self._in_flight += 1
        work = loop.run_in_executor(
            self._threads, self._handle, route, body, content_type, path, deadline
        )
        # Not in `finally`: a thread goes on after its time is up, and so keeps its place.
        work.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.shield(work), seconds)
        except asyncio.TimeoutError:
            return route.refuse(late(seconds), self._champion.model)

    def close(self) -> None:
        """Takes on nothing more."""
        self._threads.shutdown(wait=False)

    def _leave(self, work: asyncio.Future[Answer]) -> None:
        self._in_flight -= 1
        if not work.cancelled():
            work.exception()  # `_handle` raises nothing there; asked so that asyncio need not warn

    def _handle(
        self, route: Route, body: bytes, content_type: str, path: str, deadline: float | None = None
    ) -> Answer:
        """Makes the answer with the model of this moment.

        Args:
            route: How.
            body: The whole body.
            content_type: Its type.
            path: The path.
            deadline: Until when, in a thread; None on the event loop.

        Raises:
            ForAnotherThread: It is too much work for the event loop; nothing else.
        """
        served = self._champion.model
        try:
            if deadline is not None and time.monotonic() > deadline:
                raise late(self._limits.request_timeout)
            model = served or self._champion.required()
            here = model.rows_at_once if deadline is None else sys.maxsize
            rows, most_bytes = RowLimits(self._limits.max_rows, here), self._limits.max_body_bytes
            request = Request(body, content_type, path, rows, most_bytes)
            answer = route.handle(model, request)
            if len(answer.body) > most_bytes:
                raise too_large(most_bytes)
            return answer
        except RequestError as error:
            return route.refuse(error, served)
        except ForAnotherThread:
            raise
        except Exception:
            logger.exception("a request to %s failed", route.name)
            message = "a request must not fail this way, got an error; see the log"
            return route.refuse(RequestError(500, "internal", message), served)
