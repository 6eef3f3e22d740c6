"""A stand-in for the endpoint: says what reached it."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from mlops.settings.serving import ServeSettings


def make(settings: ServeSettings) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        length, more = 0, True
        while more:
            message = await receive()
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        if scope["path"] == "/raise":
            raise RuntimeError("on purpose")
        if scope["path"] == "/sleep":
            await asyncio.sleep(float(scope["query_string"] or b"1"))
        seen = {
            "pid": os.getpid(),
            "path": scope["path"],
            "length": length,
            "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
            "replicas": settings.replicas,
        }
        body = json.dumps(seen).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def broken(settings: ServeSettings) -> Any:
    raise ValueError("the app must be made, got an error on purpose")
