"""The endpoint as an ASGI application.

    POST /predict                            mlops.serving.requests, .arrow
    POST /invocations                        mlops.serving.mlflow_protocol
    POST /v2/models/{name}/.../infer         mlops.serving.inference_protocol
    everything else                          FastAPI: mlops.serving.routes

The three are answered without FastAPI and pydantic, which cost more than all the rest of a request
for one row. Each request takes one reference to the model when its body is there, so no answer
mixes versions. Small bodies are answered where they arrive, one after the other; large ones in a
thread, so that others need not wait for them: at most `max_in_flight` of those at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from mlops.errors import RequestError
from mlops.serving.arrow import read_arrow, write_arrow
from mlops.serving.cells import plain
from mlops.serving.champion import Champion
from mlops.serving.inference_protocol import infer, is_infer, refuse_infer
from mlops.serving.metrics import Metrics
from mlops.serving.mlflow_protocol import invocations, refuse_invocations
from mlops.serving.predictor import ServedModel
from mlops.serving.requests import ARROW, Request, media_type, read_predict
from mlops.serving.responses import Answer, Send, answered, predictions, refusal, send_answer
from mlops.serving.routes import make_routes
from mlops.serving.security import (
    Bodies,
    Disconnected,
    Guard,
    Limits,
    Receive,
    busy,
    header,
    late,
    read_token,
)

INLINE_BYTES = 65_536  # some 150 rows of 20 columns in JSON: 2 ms
THREADS = 2
LINGER_SECONDS = 2.0
logger = logging.getLogger(__name__)

Scope = dict[str, Any]
ASGIApp = Callable[..., Any]


class Settings(Protocol):
    """What an endpoint needs of the settings of the job."""

    @property
    def max_rows(self) -> int: ...
    @property
    def max_body_bytes(self) -> int: ...
    @property
    def max_in_flight(self) -> int: ...
    @property
    def request_timeout(self) -> float: ...
    @property
    def body_timeout(self) -> float: ...
    @property
    def page(self) -> bool: ...
    @property
    def token_file(self) -> str | None: ...


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
        RequestError: The body cannot be read.
    """
    if media_type(request.content_type) != ARROW:
        cells = read_predict(request, model.columns)
        return predictions(model, model.probabilities(cells))
    cells = read_arrow(request.body, model.columns, request.max_rows)
    probabilities = model.probabilities(cells)
    body = write_arrow(model, model.labels(probabilities), probabilities)
    return answered(model, body, content_type=ARROW.encode(), rows=len(probabilities))


ROUTES = {
    "/predict": Route("/predict", predict, refusal),
    "/invocations": Route("/invocations", invocations, refuse_invocations),
}
INFER = Route("/v2/models/{name}/infer", infer, refuse_infer)


def make_app(settings: Settings, champion: Champion) -> ASGIApp:
    """Makes the application of one process; its lifespan starts and stops the champion.

    Raises:
        SettingsError: The token cannot be read.
    """
    limits = Limits(
        max_rows=settings.max_rows,
        max_body_bytes=settings.max_body_bytes,
        max_in_flight=settings.max_in_flight,
        request_timeout=settings.request_timeout,
        body_timeout=settings.body_timeout,
    )
    metrics = Metrics()
    champion.counter = metrics
    rest = make_routes(champion, metrics)
    open_paths: set[str] = set()
    if settings.page:
        from mlops.serving.page_files import page_routes

        routes = page_routes()
        rest.router.routes.extend(routes)
        # The files hold nothing secret, and it is the page that asks for the token.
        open_paths = {route.path for route in routes}
    guard = Guard(read_token(settings.token_file), open_paths)
    return Endpoint(champion, limits, guard, metrics, rest)


class Endpoint:
    """Answers requests; everything in it happens on one event loop, but for large bodies.

    Args:
        champion: Holds the model.
        limits: What a request may take.
        guard: Checks the token.
        metrics: Counts.
        rest: Answers the other routes.
    """

    def __init__(
        self, champion: Champion, limits: Limits, guard: Guard, metrics: Metrics, rest: ASGIApp
    ) -> None:
        self._champion = champion
        self._limits = limits
        self._guard = guard
        self._metrics = metrics
        self._rest = rest
        self._bodies = Bodies(limits)
        self._in_flight = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="predict")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one connection's request, as ASGI has it."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        path = scope["path"]
        route = ROUTES.get(path) or (INFER if is_infer(path) else None)
        try:
            self._guard.check(path, scope["headers"])
        except RequestError as error:
            answer = (route.refuse if route else refusal)(error, None)
            await self._send_refusal(answer, receive, send)
        else:
            if route is None:
                await self._pass_on(scope, receive, send, started)
                return
            try:
                answer = await self._answer(route, scope, receive)
            except _Unread as unread:
                answer = unread.answer
                await self._send_refusal(answer, receive, send)
            except Disconnected:
                return
            else:
                await send_answer(send, answer)
        name = route.name if route else "other"
        self._metrics.count(name, answer, time.perf_counter() - started)

    async def _answer(self, route: Route, scope: Scope, receive: Receive) -> Answer:
        headers = scope["headers"]
        try:
            if scope["method"] != "POST":
                raise RequestError(
                    405,
                    "method_not_allowed",
                    f"{route.name} must be asked with POST, got {scope['method']}; see /docs",
                )
            if coding := header(headers, b"content-encoding").decode("latin-1"):
                raise RequestError(
                    415,
                    "unsupported_media_type",
                    f"a body must be sent as it is, got Content-Encoding {plain(coding)}; send it "
                    "without",
                )
            body = await self._bodies.read(receive, headers)
        except RequestError as error:
            raise _Unread(route.refuse(error, self._champion.model)) from error
        try:
            content_type = header(headers, b"content-type").decode("latin-1").lower()
            request = Request(body, content_type, scope["path"], self._limits.max_rows)
            if len(body) <= INLINE_BYTES:
                return self._handle(route, request)
            return await self._in_thread(route, request)
        finally:
            self._bodies.release(len(body))

    async def _in_thread(self, route: Route, request: Request) -> Answer:
        if self._in_flight >= self._limits.max_in_flight:
            return route.refuse(busy(), self._champion.model)
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + self._limits.request_timeout
        self._in_flight += 1
        work = loop.run_in_executor(self._threads, self._handle, route, request, deadline)
        # Not in `finally`: a thread goes on after its time is up, and so keeps its place.
        work.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.shield(work), self._limits.request_timeout)
        except asyncio.TimeoutError:
            return route.refuse(late(self._limits.request_timeout), self._champion.model)

    def _leave(self, work: asyncio.Future[Answer]) -> None:
        self._in_flight -= 1
        if not work.cancelled():
            work.exception()  # `_handle` raises nothing; asked so that asyncio need not warn

    def _handle(self, route: Route, request: Request, deadline: float | None = None) -> Answer:
        """Makes the answer with the model of this moment; raises nothing."""
        model = self._champion.model
        try:
            if deadline is not None and time.monotonic() > deadline:
                raise late(self._limits.request_timeout)
            return route.handle(model or self._champion.required(), request)
        except RequestError as error:
            return route.refuse(error, model)
        except Exception:
            logger.exception("a request to %s failed", route.name)
            message = "a request must not fail this way, got an error; see the log"
            return route.refuse(RequestError(500, "internal", message), model)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        """Lets FastAPI answer, and adds which version is being served."""
        status = 0
        model = self._champion.model

        async def counted(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                # What says something of a model has said which.
                if model is not None and not header(headers, b"x-model-version"):
                    message["headers"] = [*headers, model.version_header]
            await send(message)

        await self._rest(scope, receive, counted)
        route = scope.get("route")
        name = getattr(route, "path", "other")
        code = "" if status < 400 else str(status)
        answer = Answer(status, b"", code=code)
        self._metrics.count(name, answer, time.perf_counter() - started)

    async def _send_refusal(self, answer: Answer, receive: Receive, send: Send) -> None:
        """Answers before the body is read, and drops what the client is still sending.

        Closing at once would reset the connection, and the client might never see the answer.
        """
        await send_answer(send, answer, last=False)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_drop(receive), LINGER_SECONDS)
        await send({"type": "http.response.body", "body": b""})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        # In a thread: it waits for the registry and loads a model.
        await asyncio.get_running_loop().run_in_executor(None, self._champion.start)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.get_running_loop().run_in_executor(None, self._champion.stop)
        self._threads.shutdown(wait=False)
        await send({"type": "lifespan.shutdown.complete"})


class _Unread(Exception):
    """The request is refused and its body not read to the end."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


async def _drop(receive: Receive) -> None:
    more = True
    while more:
        message = await receive()
        more = message["type"] == "http.request" and message.get("more_body", False)
