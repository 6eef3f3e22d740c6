"""The endpoint as a Ray Serve application: assembled, started, waited for and stopped.

`application` is for Ray's own commands (`serve run mlops.serving.deployment:application`), `serve`
for the job. Ray reads its settings from the environment when it is imported, and its processes
inherit them, so nothing of Ray is imported before `serve` has set them.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlops.cluster.connection import Connection
from mlops.errors import InputError, ServingError
from mlops.serving.endpoint.metrics import MULTIPROCESS_VARIABLE
from mlops.serving.endpoint.security import required_token
from mlops.serving.ingress import credentials
from mlops.serving.ingress.address import Door, open_door
from mlops.serving.ingress.announcing import announcement, ray_lives, watch
from mlops.serving.ingress.inside_serve import host_of_serve, keep_replica_on_loopback, started_here
from mlops.settings.serving import ServeSettings
from mlops.tracking.store.store import resolve_uri

if TYPE_CHECKING:
    from ray.serve import Application

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
Factory = Callable[[ServeSettings], AsgiApp]

NAME = "mlops"
_HEAD = "node:__internal_head__"
# Requests that Serve lets in a replica at a time; HAProxy lets in 4096 connections in all.
MOST_REQUESTS = 5000
# Seconds until a replica that ended is noticed; the same for the proxy, three times over.
_HEALTH_SECONDS = 1.0
_RAISED = re.compile(r"\s*[\w.]+(Error|Exception): ")


def champion_app(settings: ServeSettings) -> AsgiApp:
    """The endpoint of the registered champion; made in each replica."""
    from mlops.serving.champion.champion import Champion
    from mlops.serving.endpoint.app import make_app

    champion = Champion(
        settings.tracking.uri, settings.tracking.model_name, settings.alias, settings.poll_seconds
    )
    app: AsgiApp = make_app(settings, champion)
    return app


def application(arguments: Mapping[str, Any]) -> Application:
    """Builds the application for `serve run`, `serve build` and `serve deploy`.

    Args:
        arguments: Settings of the job serve; where to listen is Ray's `http_options` here.
    """
    return build(ServeSettings.model_validate(dict(arguments)))


def __getattr__(name: str) -> Application:
    """Lets `serve build mlops.serving.deployment:endpoint` find an application with no settings."""
    if name != "endpoint":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return application({})


def build(
    settings: ServeSettings,
    factory: Factory = champion_app,
    environment: Mapping[str, str] = MappingProxyType({}),
    resources: Mapping[str, float] = MappingProxyType({}),
    secrets: Path | None = None,
) -> Application:
    """Builds the application: one deployment, each replica with an ASGI app of its own.

    Args:
        settings: The job's settings.
        factory: Makes the ASGI app in a replica; a function that can be imported there.
        environment: Variables of the replicas, beside those of the cluster.
        resources: What a replica needs besides cores and GPUs.
        secrets: What `credentials.leave` has left; None for what the cluster's environment has.
    """
    from ray import serve
    from ray.serve.config import BackpressureConfig
    from ray.serve.schema import LoggingConfig

    @serve.deployment(
        name="endpoint",
        num_replicas=settings.replicas,
        ray_actor_options={
            "num_cpus": settings.cpus_per_replica,
            "num_gpus": settings.gpus_per_replica,
            "runtime_env": {"env_vars": dict(environment)},
            "resources": dict(resources),
        },
        # The app itself answers 503 beyond max_in_flight. Serve counts requests from their headers
        # on, those too whose body comes slowly, so it must let in more than the proxy does.
        max_ongoing_requests=MOST_REQUESTS,
        max_queued_requests=MOST_REQUESTS,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        health_check_period_s=_HEALTH_SECONDS,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=settings.request_timeout + 5,
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )
    @serve.ingress()
    class Endpoint:
        def __init__(self) -> None:
            keep_replica_on_loopback()

        def __serve_build_asgi_app__(self) -> AsgiApp:
            if secrets is not None:
                credentials.take_up(secrets)
            for host in (settings.host, host_of_serve()):
                required_token(host, settings.token_file)
            return factory(settings)

    app: Application = Endpoint.bind()  # type: ignore[attr-defined]
    return app


def serve(settings: ServeSettings, factory: Factory = champion_app) -> dict[str, Any]:
    """Serves until interrupted.

    A server has no other end than being told to stop, so that is success.

    Returns:
        The job's result.

    Raises:
        InputError: The address cannot be listened on, or the replicas do not fit.
        ServingError: The application did not start.
    """
    settings = _from_any_folder(settings)
    # Libraries may print; stdout is for the job's result alone.
    with redirect_stdout(sys.stderr), open_door(settings) as door:
        os.environ.update(door.environment)
        connection = Connection()
        try:
            connection.open()
            _check_cluster(settings)
            try:
                _start(settings, factory, door)
                door.wait_until_open(settings.replicas)
                started = time.monotonic()
                print(announcement(settings, door), file=sys.stderr, flush=True)
                watch(door)
            finally:
                door.close(settings.request_timeout)
                with redirect_stdout(io.StringIO()):  # Ray tells of the end as of a failure
                    _stop()
        finally:
            with redirect_stdout(io.StringIO()):
                connection.close()
    seconds = round(time.monotonic() - started, 1)
    return {"url": door.url, "model_name": settings.tracking.model_name, "seconds": seconds}


def _from_any_folder(settings: ServeSettings) -> ServeSettings:
    """Makes paths absolute: replicas may run elsewhere."""
    tracking = settings.tracking.model_copy(update={"uri": resolve_uri(settings.tracking.uri)})
    token = settings.token_file and str(Path(settings.token_file).expanduser().resolve())
    return settings.model_copy(update={"tracking": tracking, "token_file": token})


def _start(settings: ServeSettings, factory: Factory, door: Door) -> None:
    """Starts Serve and the application on the connected cluster."""
    from ray import serve

    # A cluster that is there already has another environment than this process.
    environment = {} if started_here() else door.environment
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": "127.0.0.1", "port": settings.port, "keep_alive_timeout_s": 60},
        controller_options={"runtime_env": {"env_vars": environment}},
    )
    # Replicas of a cluster listen on loopback too, so they live where HAProxy does, and the job.
    resources = {_HEAD: 0.001} if environment else {}
    counting = {MULTIPROCESS_VARIABLE: str(door.metrics)}
    secrets = credentials.leave(door.folder, door.token, str(settings.tracking.uri))
    # Its URI may have a password in it, and is among them.
    tracking = settings.tracking.model_copy(update={"uri": None})
    settings = settings.model_copy(update={"tracking": tracking})
    app = build(settings, factory, {**environment, **counting}, resources, secrets)
    try:
        serve.run(app, name=NAME, route_prefix="/")
    except RuntimeError as error:
        raise ServingError(f"the replicas must start, got {_reason() or error}") from error


def _check_cluster(settings: ServeSettings) -> None:
    """Refuses a cluster that cannot serve, and leaves what runs there alone.

    Raises:
        InputError: It cannot.
    """
    from ray import serve

    _check_resources(settings)
    if started_here():
        return
    _check_machine()
    if serve.status().proxies:
        raise InputError(
            "the cluster must not run Serve yet, got one that does; deploy to it with `serve "
            "deploy configs/ray_serve.yaml`, or end it with `serve shutdown`"
        )


def _check_machine() -> None:
    """Serve puts HAProxy on the head's machine; its files, and the credentials, are on this one."""
    import ray

    here = ray.util.get_node_ip_address()
    heads = [node for node in ray.nodes() if _HEAD in node["Resources"]]
    addresses = [node["NodeManagerAddress"] for node in heads]
    if here not in addresses:
        raise InputError(
            f"the job must run on the machine of the cluster's head, {', '.join(addresses)}, got "
            f"{here}; start it there, by `ray exec` or `ray job submit`"
        )


def _check_resources(settings: ServeSettings) -> None:
    """Serve would wait for ever for what the cluster does not have."""
    import ray

    have = ray.cluster_resources()
    wanted = {
        "CPU": settings.replicas * settings.cpus_per_replica,
        "GPU": settings.replicas * settings.gpus_per_replica,
    }
    if any(number > have.get(kind, 0) + 1e-9 for kind, number in wanted.items()):
        raise InputError(
            f"replicas: {settings.replicas} of {settings.cpus_per_replica:g} cores and "
            f"{settings.gpus_per_replica:g} GPUs must fit the cluster, got {have.get('CPU', 0):g} "
            f"cores and {have.get('GPU', 0):g} GPUs; lower --replicas or --cpus_per_replica"
        )


def _reason() -> str:
    """The last line of the traceback of a replica that did not start."""
    from ray import serve

    deployments = serve.status().applications[NAME].deployments
    lines = [line for it in deployments.values() for line in it.message.splitlines()]
    raised = [line.strip() for line in lines if _RAISED.match(line)]
    return raised[-1] if raised else ""


def _stop() -> None:
    """Ends Serve on the cluster, with what of it has started."""
    if "ray" in sys.modules and ray_lives():
        from ray import serve

        serve.shutdown()
