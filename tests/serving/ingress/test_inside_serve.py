"""Another Ray Serve than the one whose inside is known."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest
import ray

from mlops.errors import ServingError
from mlops.serving.ingress.inside_serve import EVERYONE, host_of_serve, keep_replica_on_loopback

pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments:DeprecationWarning")


@pytest.fixture
def replica() -> ModuleType:
    return import_module("ray.serve._private.replica")


@pytest.fixture
def context() -> ModuleType:
    return import_module("ray.serve.context")


def test_a_replica_that_might_be_open_to_everyone_does_not_start(
    monkeypatch: pytest.MonkeyPatch, replica: ModuleType
) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.delattr(replica, "add_port_to_grpc_server")
    with pytest.raises(
        ServingError, match=r"kept on this machine, got Ray [0-9.]+, which .*install"
    ):
        keep_replica_on_loopback()


def test_a_replica_is_kept_on_loopback_where_ray_is(
    monkeypatch: pytest.MonkeyPatch, replica: ModuleType
) -> None:
    bound = []
    monkeypatch.setattr(
        replica, "add_port_to_grpc_server", lambda server, address: bound.append(address)
    )
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    keep_replica_on_loopback()
    replica.add_port_to_grpc_server(None, "10.0.0.7:0")
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    keep_replica_on_loopback()
    replica.add_port_to_grpc_server(None, "[::]:0")
    assert bound == ["10.0.0.7:0", "127.0.0.1:0"]


@pytest.mark.parametrize("inside", [None, object(), "gone"])
def test_a_serve_that_does_not_say_where_it_listens_may_be_open_to_everyone(
    monkeypatch: pytest.MonkeyPatch, context: ModuleType, inside: object
) -> None:
    if inside == "gone":
        monkeypatch.delattr(context, "_get_global_client")
    else:
        monkeypatch.setattr(context, "_get_global_client", lambda: inside)
    assert host_of_serve() == EVERYONE
