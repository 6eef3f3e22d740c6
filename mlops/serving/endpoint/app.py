"""The endpoint as an ASGI application.

    POST /predict                            mlops.serving.protocols.predict, .arrow
    POST /invocations                        mlops.serving.protocols.mlflow_scoring
    POST /v2/models/{name}/.../infer         mlops.serving.protocols.open_inference
    everything else                          FastAPI: mlops.serving.endpoint.routes

The three are answered without FastAPI and pydantic, which cost more than all the rest of a request
for one row. Each request takes one reference to the model when its body is there, so no answer
mixes versions. Where it is made: `mlops.serving.endpoint.answering`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from mlops.errors import RequestError
from mlops.serving.champion.champion import Champion
from mlops.serving.endpoint.answering import Handler, Route, route_of
from mlops.serving.endpoint.metrics import Metrics
from mlops.serving.endpoint.routes import make_routes
from mlops.serving.endpoint.security import Guard, header, required_token
from mlops.serving.endpoint.traffic import (
    Answers,
    Bodies,
    Disconnected,
    Limits,
    Receive,
    Send,
    busy,
)
from mlops.serving.protocols.responses import Answer, head, refusal
from mlops.serving.rows.cells import plain

LINGER_SECONDS = 2.0
BODY = {"type": "http.response.body"}

Scope = dict[str, Any]
ASGIApp = Callable[..., Any]


class Settings(Protocol):
    """What an endpoint needs of the settings of the job."""

    @property
    def host(self) -> str: ...
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


def make_app(settings: Settings, champion: Champion) -> ASGIApp:
    """Makes the application of one process; its lifespan starts and stops the champion.

    Raises:
        SettingsError: The token cannot be read, or there is none and others can reach the host.
    """
    token = required_token(settings.host, settings.token_file)
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
        from mlops.serving.endpoint.page_files import page_routes

        routes = page_routes()
        rest.router.routes.extend(routes)
        # The files hold nothing secret, and it is the page that asks for the token.
        open_paths = {route.path for route in routes}
    return Endpoint(champion, limits, Guard(token, open_paths), metrics, rest)


class Endpoint:
    """Answers requests; everything in it happens on one event loop, but for what is much work.

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
        self._guard = guard
        self._metrics = metrics
        self._rest = rest
        self._bodies = Bodies(limits)
        self._answers = Answers(limits)
        self._handler = Handler(champion, limits)

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
        route = route_of(path)
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
                await self._answers.send(send, head(answer), {**BODY, "body": answer.body})
            except _Unread as unread:
                answer = unread.answer
                await self._send_refusal(answer, receive, send)
            except Disconnected:
                return  # of an answer that is not whole the server closes the connection
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
            answer = await self._handler.answer(route, body, content_type, scope["path"])
        finally:
            self._bodies.release(len(body))
        if self._answers.has_room(len(answer.body)):
            return answer
        return route.refuse(busy(), self._champion.model)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        """Lets FastAPI answer, and adds which version is being served."""
        status = 0
        model = self._champion.model
        refused: Answer | None = None

        async def counted(message: dict[str, Any]) -> None:
            nonlocal status, refused
            if message["type"] == "http.response.start":
                headers = message["headers"]
                # What says something of a model has said which.
                if model is not None and not header(headers, b"x-model-version"):
                    message["headers"] = [*headers, model.version_header]
                if not self._answers.has_room(int(header(headers, b"content-length") or 0)):
                    refused = refusal(busy(), model)
                    message = head(refused)
                status = message["status"]
            elif refused is not None:
                message = {**message, "body": b"" if message.get("more_body") else refused.body}
            await self._answers.send(send, message)

        with suppress(Disconnected):
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
        await send(head(answer, last=False))
        await send({**BODY, "body": answer.body, "more_body": True})
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_drop(receive), LINGER_SECONDS)
        await send(BODY)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        # In a thread: it waits for the registry and loads a model.
        await asyncio.get_running_loop().run_in_executor(None, self._champion.start)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.get_running_loop().run_in_executor(None, self._champion.stop)
        self._handler.close()
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
