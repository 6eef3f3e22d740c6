"""A proxy before a server: it can take its time, and answer with errors of its own."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """What a proxy does to the requests that pass it.

    Attributes:
        uri: Where it listens.
        delay: Seconds that each answer is kept back, but for files.
        broken: Whether it answers 500 and passes nothing on.
        losing: Whether it loses each third answer to a run's creation, which has taken place.
        passed: How many requests it has passed on.
        refused: How many it has not.
        lost: How many answers it has lost.
    """

    uri: str = ""
    delay: float = 0.0
    broken: bool = False
    losing: bool = False
    passed: int = 0
    refused: int = 0
    lost: int = 0


@contextmanager
def proxy_to(server: str) -> Iterator[Proxy]:
    """A proxy before `server`, an http URI, while the context lasts."""
    proxy, created = Proxy(), itertools.count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if proxy.broken:
                proxy.refused += 1
                self._answer(500, {"Content-Type": "text/html"}, b"<h1>Internal Server Error</h1>")
                return
            connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if "/mlflow-artifacts/" not in self.path:
                time.sleep(proxy.delay)
            proxy.passed += 1
            dropped = {"connection", "content-length", "transfer-encoding", "date", "server"}
            headers = {k: v for k, v in answer.getheaders() if k.lower() not in dropped}
            if proxy.losing and self.path.endswith("/runs/create") and next(created) % 3 == 0:
                proxy.lost += 1
                self.close_connection = True
                return
            self._answer(answer.status, headers, content)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        proxy.uri = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            listening.shutdown()
            thread.join()
