"""Several hosts on one machine: namespaces with address, home, /tmp and sshd of their own."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

NETWORK = "mlops-net"
NEEDED = ("ip", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen", "rsync", "mount")
# Whatever the machine's own /etc says: names are not to be looked up elsewhere, which takes 10 s.
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"

START = """
set -e
hostname {name}
mkdir -p {folder}/home {folder}/kept
n=0
for path in {kept}; do
  n=$((n + 1)); mkdir -p {folder}/kept/$n; mount --bind $path {folder}/kept/$n
done
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/nsswitch /etc/nsswitch.conf
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount --bind {folder}/home $HOME
chmod 1777 /tmp
n=0
for path in {kept}; do
  n=$((n + 1)); mkdir -p $path; mount --bind {folder}/kept/$n $path
done
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f {folder}/sshd_config
"""


@dataclass
class Host:
    """One of the hosts.

    Attributes:
        name: Its name and the name of its network namespace.
        address: Its address.
        folder: What it keeps, as this machine sees it; `home` in it is its user's home.
        process: Its first process, as this machine sees it; without it there is no host.
    """

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        """The home of its user, as this machine sees it."""
        return self.folder / "home"

    def run(self, command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a shell's command on the host."""
        return subprocess.run(
            self._words(command), capture_output=True, text=True, timeout=timeout, check=False
        )

    def start(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        """Starts a shell's command on the host."""
        with log.open("wb") as stream:
            return subprocess.Popen(self._words(command), stdout=stream, stderr=subprocess.STDOUT)

    def _words(self, command: str) -> list[str]:
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        environment = [f"{name}={value}" for name, value in clean.items()]
        enter = ["nsenter", "--all", "--target", str(_first_inside(self.process.pid))]
        return [*enter, "env", "-i", *environment, "bash", "-c", f"cd; {command}"]

    def cut_off(self) -> None:
        """Pulls the cable."""
        _ip(f"-n {NETWORK} link set {self.name} down")

    def power_off(self) -> None:
        """Kills all of its processes at once."""
        os.kill(_first_inside(self.process.pid), signal.SIGKILL)
        self.process.wait(20)


@contextmanager
def hosts(*names: str) -> Iterator[dict[str, Host]]:
    """Hosts that reach each other by name, and as root by ssh without a password."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or os.getuid():
        pytest.skip(f"needs root and {', '.join(missing or NEEDED)}")
    # Not in /tmp, which the hosts have for themselves.
    folder = Path(tempfile.mkdtemp(prefix="mlops-hosts-", dir="/var/tmp"))
    made: dict[str, Host] = {}
    try:
        key = folder / "key"
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        _ip(f"netns add {NETWORK}")
        _ip(f"-n {NETWORK} link add bridge type bridge")
        _ip(f"-n {NETWORK} link set bridge up")
        addresses = {name: f"10.77.0.{10 + n}" for n, name in enumerate(names)}
        for name, address in addresses.items():
            made[name] = _host(folder, name, addresses, address, key)
        for host in made.values():
            _wait_until_reachable(host)
        yield made
    finally:
        for host in made.values():
            if host.process.poll() is None:
                host.power_off()
        for name in [*names, NETWORK]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _host(folder: Path, name: str, addresses: dict[str, str], address: str, key: Path) -> Host:
    own = folder / name
    (own / "home" / ".ssh").mkdir(parents=True, mode=0o700)
    public = key.with_suffix(".pub").read_text()
    (own / "home" / ".ssh" / "authorized_keys").write_text(public)
    shutil.copy(key, own / "home" / ".ssh" / "id_ed25519")
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(own / "host_key"))
    lines = ["127.0.0.1 localhost", *(f"{ip} {other}" for other, ip in addresses.items())]
    (own / "hosts").write_text("\n".join(lines) + "\n")
    (own / "nsswitch").write_text(NSSWITCH)
    (own / "sshd_config").write_text(
        f"HostKey {own}/host_key\nListenAddress {address}\nPidFile none\nStrictModes no\n"
        "PasswordAuthentication no\nUsePAM no\nPermitRootLogin yes\nAcceptEnv *\n"
    )
    _ip(f"netns add {name}")
    _ip(f"-n {name} link set lo up")
    _ip(f"link add eth0 netns {name} type veth peer name {name} netns {NETWORK}")
    _ip(f"-n {NETWORK} link set {name} master bridge up")
    _ip(f"-n {name} address add {address}/24 dev eth0")
    _ip(f"-n {name} link set eth0 up")
    kept = sorted({sys.prefix, sys.base_prefix, str(Path(__file__).parents[2])}, key=len)
    script = START.format(name=name, folder=own, kept=shlex.join(kept))
    unshare = [
        "unshare",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ]
    with (own / "log").open("wb") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, *unshare, "bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return Host(name, address, own, process)


def _wait_until_reachable(host: Host) -> None:
    deadline = time.monotonic() + 20
    ssh = f"ssh -o StrictHostKeyChecking=no -o ConnectTimeout=2 {host.address} true"
    while host.run(ssh).returncode:
        alive = host.process.poll() is None and time.monotonic() < deadline
        assert alive, (host.folder / "log").read_text()
        time.sleep(0.2)


def _first_inside(pid: int) -> int:
    """Returns the first process of the host's own pid namespace: the child of `unshare`."""
    for _ in range(100):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.05)
    raise AssertionError(f"{pid} has no child")


def _ip(words: str) -> None:
    _run("ip", *words.split())


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
