"""A tunnel to a port of this machine, as ssh makes them, which may go dead without a word."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer


class Tunnel:
    """What is done to connections through it.

    Attributes:
        port: Where it listens.
        delay: Seconds that each piece is kept back.
    """

    def __init__(self) -> None:
        self.port = 0
        self.delay = 0.0
        self._is_dead = False
        self._lost = 0
        self._closed = threading.Event()

    def go_dead(self) -> None:
        """Carries nothing from now on; connections stay, and new ones are taken."""
        self._is_dead = True
        self._lost += 1

    def come_back(self) -> None:
        """Carries what new connections send; the old ones stay as they are."""
        self._is_dead = False

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        lost = self._lost
        with suppress(OSError):
            while data := source.recv(2**16):
                time.sleep(self.delay)
                if self._is_dead or self._lost != lost:
                    self._closed.wait()
                    break
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def tunnel_to(port: int) -> Iterator[Tunnel]:
    """A tunnel while the context lasts."""
    tunnel = Tunnel()

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as server:
                there = threading.Thread(target=tunnel.carry, args=(self.request, server))
                there.start()
                tunnel.carry(server, self.request)
                with suppress(OSError):
                    self.request.shutdown(socket.SHUT_RD)
                there.join()

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as listening:
        tunnel.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield tunnel
        finally:
            tunnel._closed.set()
            listening.shutdown()
            thread.join()
