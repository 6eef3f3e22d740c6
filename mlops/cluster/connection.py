"""Ray: connecting to a cluster or starting one."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from mlops.cluster import news
from mlops.errors import InputError, first_line

LOCAL = "local"
# Seconds a cluster may take to accept a connection.
CONNECT_SECONDS = 10.0
# How HTTP/2, which Ray speaks, begins: with words of its own, and a frame of settings on each side.
_SETTINGS = b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + bytes(5)


class Connection:
    """A connection to Ray: to a cluster that is there, else to one started here.

    Open it in the main thread: the kernel ends the processes of a cluster with the thread that
    started them. An existing connection is used and left alone.

    Args:
        address: `auto` or `HOST:PORT`; by default what `RAY_ADDRESS` says, and `local` without it.
    """

    def __init__(self, address: str | None = None) -> None:
        # Before anything imports Ray.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        if self._address != LOCAL:
            authenticate()
        self._opened = False

    @property
    def is_local(self) -> bool:
        """Whether there is no cluster but the one to be started here."""
        return self._address == LOCAL

    def open(self) -> None:
        """Connects.

        Raises:
            InputError: If there is no cluster at the address.
        """
        import ray

        if ray.is_initialized():
            return
        news.shorten()
        address = self._address
        doing = "starting Ray" if self.is_local else f"connecting to Ray at {address}"
        print(doing, file=sys.stderr, flush=True)
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            if not self.is_local:
                address = _found() if address == "auto" else address
                if address != "auto":
                    greet(address)
            ray.init(
                address=address,
                include_dashboard=False if self.is_local else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise _no_cluster(address, error) from error
        # Ray's own ends the process with a dump of the stack.
        signal.signal(signal.SIGTERM, on_sigterm)
        self._opened = True

    def close(self) -> None:
        """Disconnects; a cluster started here ends. Harmless when repeated.

        Other threads may go on meanwhile, as long as they hold nothing of Ray's.
        """
        if self._opened:
            import ray

            # Garbage may hold references to objects of Ray's. Let no other thread collect it now:
            # a reference dropped while Ray shuts down can end the process.
            gc.freeze()
            ray.shutdown()
            gc.unfreeze()
            self._opened = False


def greet(address: str) -> None:
    """Greets what listens at an address: Ray would go on trying for minutes, whatever it is.

    Raises:
        OSError: It is not `HOST:PORT`, nobody answers, or something else than Ray.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise OSError("no HOST:PORT; a job server's http:// is for --address of tune and train")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as server:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            server.settimeout(CONNECT_SECONDS)
            server.sendall(_GREETING)
            if server.recv(9)[3:4] != _SETTINGS:
                raise OSError("something else than Ray listens there")
    except OverflowError as error:
        raise OSError(first_line(error)) from error


def _found() -> str:
    """Returns the address of this machine's cluster, which may be gone.

    As Ray finds it by itself; `auto` where it is not the Ray that this was read in, 2.60.

    Raises:
        ConnectionError: There has been none.
    """
    try:
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:
        return "auto"
    address: str | None = canonicalize_bootstrap_address("auto")
    if address is None:
        raise ConnectionError("none is known on this machine")
    return address


def _no_cluster(address: str, error: Exception) -> InputError:
    return InputError(
        f"address: must be that of a running cluster, got {address} ({first_line(error)}); start "
        "one with `ray start --head`, see that its token is in ~/.ray/auth_token here too, or "
        "leave --address and RAY_ADDRESS out to use this machine alone"
    )


def authenticate() -> None:
    """Lets Ray send its token, if there is one; to an address it does so only when told."""
    token = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
    if "RAY_AUTH_TOKEN" in os.environ or Path(token).expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def lasting_folder() -> Path:
    """Returns the folder that relative paths of what is to stay are in.

    That of a submitted job is a copy, which Ray removes with the job: then it is the home.
    """
    return Path.home() if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else Path.cwd()
