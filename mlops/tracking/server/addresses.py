"""By what names and addresses a tracking server is called, and by which ones it answers."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address

import psutil

# By these names, besides this machine's own, clients may call it unless told otherwise.
PRIVATE = ["localhost", "127.0.0.1", "[::1]", "10.*", "192.168.*"]
PRIVATE += [f"172.{number}.*" for number in range(16, 32)]


def as_in_a_uri(host: str) -> str:
    """Returns a name or an address as a URI has it."""
    return f"[{host}]" if ":" in host else host


def for_clients(host: str, port: int, here: bool = False) -> str:
    """Returns the address for clients; one that stands for all addresses is none to call.

    Args:
        host: Address that the server listens on.
        port: Its port.
        here: Whether the client is on this machine.
    """
    return f"http://{as_in_a_uri(_called(host, here))}:{port}"


def _called(host: str, here: bool = False) -> str:
    if host not in ("0.0.0.0", "::"):
        return host
    return "127.0.0.1" if here else socket.gethostname()


def is_loopback(host: str) -> bool:
    """Tells whether an address is of this machine alone."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def guards(host: str, allowed_hosts: str | None) -> list[str]:
    """Returns flags that say by what names clients may call it, and whose pages may change it.

    MLflow knows private addresses alone, and of pages only those of this machine's own browser.

    Args:
        host: Address that the server listens on.
        allowed_hosts: Names by which clients may call it, separated by commas; None for this
            machine's name and addresses, private addresses and localhost.
    """
    names = [as_in_a_uri(_called(host)), *_addresses()]
    hosts = [*PRIVATE, *names]
    if allowed_hosts:
        hosts = names = [name.strip() for name in allowed_hosts.split(",")]
    pages = _with_ports([name for name in names if name != "*"])
    origins = [f"{scheme}://{page}" for page in pages for scheme in ("http", "https")]
    flags = ["--allowed-hosts", ",".join(_with_ports(hosts))]
    return [*flags, "--cors-allowed-origins", ",".join(origins)]


def _with_ports(names: list[str]) -> list[str]:
    """Returns names as they are, and as patterns of them with any port."""
    return [*names, *(f"{name.replace('[', '[[]')}:*" for name in names)]


def _addresses() -> list[str]:
    """Returns this machine's addresses, as a URL has them."""
    found = [address for network in psutil.net_if_addrs().values() for address in network]
    four = [address.address for address in found if address.family == socket.AF_INET]
    six = [address.address for address in found if address.family == socket.AF_INET6]
    return [*four, *(f"[{address.partition('%')[0]}]" for address in six)]
