"""Several hosts on one machine: processes, network, name, memory and home of their own.

Each is a set of Linux namespaces and runs `sshd`; all are on one network that nothing else is in.
They see the machine's programs, read-only, but neither its home and temporary folders nor the
repository. One more, the laptop, sees the repository, and has the key to the others.

Nothing is left behind: the first process of them all reads a pipe from this one and ends when this
one does, however; the kernel then ends all others, and what they had mounted goes with them.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[2]
HOME = pwd.getpwuid(os.getuid()).pw_dir
NETWORK = "10.77.0"
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")
# The interpreter that runs this, with its packages.
PYTHON = sorted({sys.prefix, sys.base_prefix})
LAPTOP = "laptop"
SSHD = "/usr/sbin/sshd"
# As much of a machine's /etc as would let it ask others, or let nobody in.
FILES = {
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    "/etc/resolv.conf": "",
    "/etc/shadow": "root:*:20000:0:99999:7:::\n",
}


def missing() -> str | None:
    """Says what hosts need that is not here, if anything."""
    if os.getuid():
        return "hosts need root"
    programs = ["bash", "ip", "nsenter", "rsync", "ssh", "ssh-keygen", SSHD, "unshare"]
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        return f"hosts need {', '.join(absent)} (apt install iproute2 openssh-server rsync)"
    if sys.prefix == sys.base_prefix:
        return "hosts need Python in a virtual environment, such as `make setup` makes"
    trying = "mount -t tmpfs none /mnt && ip link add one type veth && ip link add two type bridge"
    words = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc"]
    tried = subprocess.run([*words, "bash", "-c", trying], capture_output=True, text=True)
    return f"hosts need namespaces: {tried.stderr.strip()}" if tried.returncode else None


class _Namespaces:
    """A set of namespaces, which lives until its first process gets no more input.

    Args:
        kinds: Those that it has of its own, as flags of `unshare`.
        script: What its first process does before anything else.
        within: The set that its processes and mounts are part of.
    """

    def __init__(self, kinds: str, script: str, within: _Namespaces | None = None) -> None:
        words = ["unshare", *kinds.split(), "--mount", "--pid", "--fork", "--mount-proc"]
        # bash takes note of every orphan's end.
        words += ["bash", "-c", f"set -e\n{script}\necho ready\nread -r forever"]
        if within is not None:
            words = ["nsenter", "--target", str(within.pid), "--mount", "--pid", *words]
        # Not of this process's group: Ctrl-C is for this one, which then clears up.
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(self._process.stderr.read())
        (first,) = _last_children(psutil.Process(self._process.pid))
        self.pid: int = first.pid
        self._kind = _pid_namespace(first.pid)

    def processes(self) -> list[psutil.Process]:
        """Returns its processes."""
        return [p for p in psutil.process_iter() if _pid_namespace(p.pid) == self._kind]

    def end(self) -> None:
        """Ends all of its processes, and with them the namespaces. Harmless when repeated."""
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._process.wait(30)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def _kill(process: subprocess.Popen[str]) -> None:
    """Ends a process and what it has started, if they have not ended."""
    if process.poll() is None:
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def _last_children(process: psutil.Process) -> list[psutil.Process]:
    return [p for p in process.children(recursive=True) if not p.children()]


def _pid_namespace(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None  # it has ended


class Host:
    """One of the hosts.

    Args:
        name: What it is called by the others, and by itself.
        address: Its address.
        switch: The namespaces of the network that it is to join.
        shown: Folders of the machine that it sees wherever they are.
        hidden: Folders of the machine that it does not see.
    """

    def __init__(
        self,
        name: str,
        address: str,
        switch: _Namespaces,
        shown: Sequence[str],
        hidden: Sequence[str],
    ) -> None:
        self.name, self.address = name, address
        self._switch = switch
        script = _mounts(shown, hidden) + f"\nhostname {name}"
        self._own = _Namespaces("--net --uts --ipc", script, switch)
        self._cable = f"to-{name}"
        self._wire(f"ip link add {self._cable} master switch type veth peer eth0 "
                   f"netns {self._own.pid}")  # fmt: skip
        self.reconnect()
        self.run(f"ip link set lo up && ip addr add {address}/24 dev eth0 && ip link set eth0 up")

    def run(self, command: str, timeout: float = 60) -> str:
        """Runs a command of bash, in the home; returns what it writes.

        Raises:
            AssertionError: It fails; with all that it has written.
        """
        with self.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            written, _ = process.communicate(timeout=timeout)
        assert process.returncode == 0, f"{command} on {self.name}: {written}"
        return written

    @contextmanager
    def start(self, command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """A command of bash, in the home, for as long as it is needed."""
        pipes = {"stdin": subprocess.DEVNULL, **options}
        words = self._words(command)
        with subprocess.Popen(words, start_new_session=True, text=True, **pipes) as process:
            try:
                yield process
            finally:
                _kill(process)

    def path(self, path: str) -> Path:
        """Returns where a path of its own is found from here; `~` is its home."""
        return Path(f"/proc/{self._own.pid}/root{path.replace('~', HOME, 1)}")

    def write(self, path: str, text: str, mode: int = 0o600) -> None:
        """Writes a file of its own."""
        file = self.path(path)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode)
        file.write_text(text)

    def processes(self) -> list[list[str]]:
        """Returns the command lines of its processes."""
        found = []
        for process in self._own.processes():
            try:
                found.append(process.cmdline())
            except psutil.Error:
                continue
        return found

    def power_off(self) -> None:
        """Ends everything there at once."""
        self._own.end()

    def cut_off(self) -> None:
        """Pulls the cable: all goes on there, but nobody hears of it."""
        self._wire(f"ip link set {self._cable} down")

    def reconnect(self) -> None:
        """Plugs the cable in."""
        self._wire(f"ip link set {self._cable} up")

    def _wire(self, command: str) -> None:
        words = ["nsenter", "--target", str(self._switch.pid), "--net", *command.split()]
        subprocess.run(words, check=True)

    def _words(self, command: str) -> list[str]:
        kinds = ["--mount", "--pid", "--net", "--uts", "--ipc"]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = ["env", "-i", f"HOME={HOME}", f"PATH={path}", "LANG=C.UTF-8", "TERM=dumb"]
        enter = ["nsenter", "--target", str(self._own.pid), *kinds]
        return [*enter, *clean, "bash", "-c", f"cd && {command}"]


def _mounts(shown: Sequence[str], hidden: Sequence[str]) -> str:
    """Returns a script: empty folders over some of the machine's, others back, all read-only."""
    lines = ["mount -t tmpfs tmpfs /mnt"]
    for i, folder in enumerate(shown):
        lines += [f"mkdir /mnt/{i}", f"mount --bind {shlex.quote(folder)} /mnt/{i}"]
    for folder in hidden:
        mode = "700" if folder == HOME else "1777"
        there = shlex.quote(folder)
        # One may be part of another.
        lines += [f"mkdir -p {there}", f"mount -t tmpfs -o mode={mode} tmpfs {there}"]
    for i, folder in enumerate(shown):
        there = shlex.quote(folder)
        lines += [f"mkdir -p {there}", f"mount --bind /mnt/{i} {there}"]
        lines += [f"mount -o remount,bind,ro {there}"]
    lines += ["umount --recursive /mnt", "mkdir /run/sshd /run/etc"]
    # As any user has it; `ray up` reads it.
    lines += [f"touch {HOME}/.bashrc", "mount -o remount,bind,ro /"]
    return "\n".join(lines)


@contextmanager
def hosts(names: Sequence[str], folder: Path) -> Iterator[dict[str, Host]]:
    """Hosts of these names, and the laptop, for as long as they are needed.

    Args:
        names: What they are to be called.
        folder: An empty one, for the keys.
    """
    with ExitStack() as stack:
        switch = _Namespaces("--net", "ip link add switch type bridge && ip link set switch up")
        stack.callback(switch.end)
        made: dict[str, Host] = {}
        hidden = [*TEMPORARY, HOME]
        for i, name in enumerate([*names, LAPTOP]):
            repository = [str(REPOSITORY)]
            shown, away = ([*PYTHON, *repository], hidden) if name == LAPTOP else (
                PYTHON, hidden + repository)  # fmt: skip
            host = Host(name, f"{NETWORK}.{11 + i}", switch, shown, away)
            stack.callback(host.power_off)
            made[name] = host
        for host in made.values():
            _furnish(host, made)
        _let_in(made, folder)
        yield made


def _furnish(host: Host, others: dict[str, Host]) -> None:
    """Gives a host files of its own for what it would ask others."""
    known = "".join(f"{other.address} {other.name}\n" for other in others.values())
    for path, text in {**FILES, "/etc/hosts": f"127.0.0.1 localhost\n{known}"}.items():
        host.write(f"/run{path}", text, 0o600 if path == "/etc/shadow" else 0o644)
        host.run(f"test ! -e {path} || mount --bind /run{path} {path}")


def _let_in(made: dict[str, Host], folder: Path) -> None:
    """Lets the laptop into the others by a fresh key."""
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    options = ["UsePAM=no", "PasswordAuthentication=no", "StrictModes=no"]
    flags = " ".join(f"-o {option}" for option in options)
    for name, host in made.items():
        if name == LAPTOP:
            host.write("~/.ssh/id_ed25519", (folder / "user").read_text())
            continue
        host.write("/run/sshd/key", (folder / "host").read_text())
        host.write("~/.ssh/authorized_keys", (folder / "user.pub").read_text())
        host.run(f"{SSHD} -f /dev/null -h /run/sshd/key -E /run/sshd/log {flags}")
    for name in made.keys() - {LAPTOP}:
        _wait_for(made[LAPTOP], f"</dev/tcp/{name}/22")


def _wait_for(host: Host, command: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            host.run(command)
            return
        except AssertionError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
