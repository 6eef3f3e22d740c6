"""What is taken from inside Ray Serve, and what is set there; read in Ray 2.60.

Serve has no settings for where its proxies and replicas listen, but variables of its processes'
environment, and for one port of a replica not even that.
"""

from __future__ import annotations

import math
import os
import secrets
from pathlib import Path

from mlops.errors import ServingError
from mlops.serving.ingress.ports import free_block
from mlops.settings.serving import ServeSettings

EVERYONE = "0.0.0.0"


def environment(settings: ServeSettings, folder: Path, program: Path) -> dict[str, str]:
    """Returns what Ray's processes must find in their environment.

    Args:
        settings: The job's.
        folder: HAProxy's files, of this job alone.
        program: What Serve is to start as HAProxy.
    """
    return {**_isolation(), **_haproxy_files(folder, program), **_tuning(settings)}


def started_here() -> bool:
    """Whether Ray is started by this job, and not a cluster that is there already."""
    return os.environ.get("RAY_ADDRESS", "local") == "local"


def _isolation() -> dict[str, str]:
    """Keeps a Ray started here to this machine and this user."""
    if not started_here():
        return {}
    return {
        # What Ray does on a Mac: its own ports bind to loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Every call between Ray's processes carries a token that no other process knows.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def _haproxy_files(folder: Path, program: Path) -> dict[str, str]:
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(program),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        # Ours has no log target; the endpoint counts its requests itself.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    }


def _tuning(settings: ServeSettings) -> dict[str, str]:
    ports = free_block(settings.replicas)
    answering = math.ceil(settings.request_timeout + settings.body_timeout) + 1
    return {
        # Handlers run on the replica's main loop, which saves a change of threads a request.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports[1]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports[-1]),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports[0]),
        # A replica that dies has its requests sent to another: predicting twice does no harm.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(answering),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(answering),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(answering),
        # A proxy is replaced after three failed checks.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "5",
        # A replica that is to end waits this long for HAProxy to have forgotten it.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


def host_of_serve() -> str:
    """Where Serve itself listens: behind the door of the job serve, else to everyone it lets in.

    Of a Serve that does not say so as it is known here, everyone is the safe answer: a token is
    then required.
    """
    try:
        from ray.serve.context import _get_global_client

        client = _get_global_client()
        return str((client and client.http_config.host) or EVERYONE)
    except (ImportError, AttributeError):
        return EVERYONE


def keep_replica_on_loopback() -> None:
    """Binds the replica's server for other replicas to loopback, where Ray itself is there.

    Ray 2.60 binds it to all interfaces whatever is set, and it unpickles what it is sent.

    Raises:
        ServingError: This Ray starts it in another way, so it might be open to everyone.
    """
    import ray
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() != "127.0.0.1":
        return
    bind = getattr(replica, "add_port_to_grpc_server", None)
    if bind is None:
        raise ServingError(
            f"a replica's server must be one that can be kept on this machine, got Ray "
            f"{ray.__version__}, which starts it in a way that is not known here; install Ray 2.60"
        )
    replica.add_port_to_grpc_server = lambda server, _: bind(server, "127.0.0.1:0")
