"""The endpoint as a Ray Serve application: assembled, started, waited for and stopped.

`application` is for Ray's own commands (`serve run mlops.serving.deployment:application`), `serve`
for the job. Ray reads its settings from the environment when it is imported, and its processes
inherit them, so nothing of Ray is imported before `serve` has set them.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlops.cluster import Connection
from mlops.errors import InputError, ServingError
from mlops.serving.ingress import Door, open_door, started_here
from mlops.serving.metrics import MULTIPROCESS_VARIABLE
from mlops.serving.security import TOKEN_VARIABLE
from mlops.settings.serving import ServeSettings
from mlops.tracking.store import resolve_uri

if TYPE_CHECKING:
    from ray.serve import Application

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
Factory = Callable[[ServeSettings], AsgiApp]

NAME = "mlops"
# Requests that Serve lets in a replica at a time; HAProxy lets in 4096 connections in all.
MOST_REQUESTS = 5000
# Seconds until a replica that ended is noticed; the same for the proxy, three times over.
_HEALTH_SECONDS = 1.0
# Seconds between looks at whether Ray is still there: without it nothing that dies is replaced.
_WATCH_SECONDS = 5.0
_RAISED = re.compile(r"\s*[\w.]+(Error|Exception): ")


def champion_app(settings: ServeSettings) -> AsgiApp:
    """The endpoint of the registered champion; made in each replica."""
    from mlops.serving.app import make_app
    from mlops.serving.champion import Champion

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
) -> Application:
    """Builds the application: one deployment, each replica with an ASGI app of its own.

    Args:
        settings: The job's settings.
        factory: Makes the ASGI app in a replica; a function that can be imported there.
        environment: Variables of the replicas, beside those of the cluster.
        resources: What a replica needs besides cores and GPUs.
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
            _keep_replica_on_loopback()

        def __serve_build_asgi_app__(self) -> AsgiApp:
            return factory(settings)

    app: Application = Endpoint.bind()  # type: ignore[attr-defined]
    return app


def _keep_replica_on_loopback() -> None:
    """Binds the replica's server for other replicas to loopback, where Ray itself is there.

    Ray 2.60 binds it to all interfaces whatever is set, and it unpickles what it is sent.
    """
    import ray
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() == "127.0.0.1":
        bind = replica.add_port_to_grpc_server
        replica.add_port_to_grpc_server = lambda server, _: bind(server, "127.0.0.1:0")


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
            _start(settings, factory, door)
            door.wait_until_open(settings.replicas)
            started = time.monotonic()
            print(_announcement(settings, door), file=sys.stderr, flush=True)
            _watch(door)
        finally:
            door.close(settings.request_timeout)
            with redirect_stdout(io.StringIO()):  # Ray tells of the end as of a failure
                _stop()
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

    _check_resources(settings)
    # A cluster that is there already has another environment than this process.
    environment = {} if started_here() else door.environment
    if environment and serve.status().proxies:
        raise InputError(
            "the cluster must not run Serve yet, got one that does; deploy to it with `serve "
            "deploy configs/ray_serve.yaml`, or end it with `serve shutdown`"
        )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": "127.0.0.1", "port": settings.port, "keep_alive_timeout_s": 60},
        controller_options={"runtime_env": {"env_vars": environment}},
    )
    # Replicas of a cluster listen on loopback too, so they live where HAProxy does.
    resources = {"node:__internal_head__": 0.001} if environment else {}
    counting = {MULTIPROCESS_VARIABLE: str(door.metrics)}
    app = build(settings, factory, {**environment, **counting}, resources)
    try:
        serve.run(app, name=NAME, route_prefix="/")
    except RuntimeError as error:
        raise ServingError(f"the replicas must start, got {_reason() or error}") from error


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


def _announcement(settings: ServeSettings, door: Door) -> str:
    """Says where the endpoint is and how to ask it, by a typical row of its model."""
    model = door.model()
    replicas = "1 replica" if settings.replicas == 1 else f"{settings.replicas} replicas"
    who = "this machine only" if door.is_local else "other machines"
    lines = [
        f"serving {settings.tracking.model_name}@{settings.alias} at {door.url}, {replicas}; "
        f"open to {who}" + (", with the token" if door.token else "")
    ]
    lines.append(f"  {_served(model)}")
    body = json.dumps({"rows": [model.get("typical_row", {})]}, ensure_ascii=False)
    headers = ["-H 'Content-Type: application/json'"]
    if door.token:
        token = f"$(cat {shlex.quote(str(settings.token_file))})"
        if TOKEN_VARIABLE in os.environ:
            token = f"${TOKEN_VARIABLE}"
        headers.append(f'-H "Authorization: Bearer {token}"')
    lines += [
        f"  ask:   curl {' '.join(headers)} -d {shlex.quote(body)} {door.url}/predict",
        f"  read:  {door.url}/docs and {door.url}/model",
        "  stop:  Ctrl-C",
    ]
    return "\n".join(lines)


def _served(model: Mapping[str, Any]) -> str:
    """Says which version answers, by what `/model` answers."""
    if error := model.get("error"):
        return f"no predictions: {error['message']}"
    refused, trouble = model.get("refused"), model.get("registry_error")
    parts = [f"model: version {model.get('version')}"]
    parts += [f"version {refused['version']} was refused: {refused['reason']}"] if refused else []
    parts += [f"the registry does not answer: {trouble}"] if trouble else []
    return "; ".join(parts)


def _watch(door: Door) -> None:
    """Tells of changes of the model until interrupted.

    Raises:
        ServingError: Ray ended before.
    """
    told = seen = _served(door.model())
    try:
        while _ray_lives():
            time.sleep(_WATCH_SECONDS)
            # Twice the same: while replicas change over, either may answer.
            before, seen = seen, _served(door.model())
            if before == seen != told:
                print(seen, file=sys.stderr, flush=True)
                told = seen
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr, flush=True)
    else:
        raise ServingError(
            "Ray must run as long as the endpoint, got its end; see /tmp/ray/session_latest/logs "
            "and start the endpoint again"
        )


def _ray_lives() -> bool:
    import ray

    try:
        return ray.is_initialized() and any(node["Alive"] for node in ray.nodes())
    except (ray.exceptions.RayError, RuntimeError, OSError):
        return False


def _stop() -> None:
    """Ends Serve on the cluster, with what of it has started."""
    if "ray" in sys.modules and _ray_lives():
        from ray import serve

        serve.shutdown()
