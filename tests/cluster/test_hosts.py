"""The hosts themselves: each has its own of everything, and they leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hosts import LAPTOP, REPOSITORY, Host, hosts, missing

pytestmark = [pytest.mark.cluster]

HERE = Path(__file__).parent


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[dict[str, Host]]:
    if reason := missing():
        pytest.skip(reason)
    with hosts(["one", "two"], tmp_path) as made:
        yield made


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def on(host: Host, command: str) -> str:
    """The command for the laptop that has another one run something."""
    return f"ssh -o StrictHostKeyChecking=no -o ConnectTimeout=2 {host.name} {command!r}"


def test_each_has_its_own(pair: dict[str, Host], tmp_path: Path) -> None:
    one, two, laptop = pair["one"], pair["two"], pair[LAPTOP]
    assert laptop.run(on(one, "hostname && touch ~/mine /tmp/mine")).split()[-1] == "one"
    for folder in ("~", "/tmp"):
        assert one.path(f"{folder}/mine").exists()
        assert not two.path(f"{folder}/mine").exists()
    assert not Path("/tmp/mine").exists()
    names = {words[0] for words in one.processes()}
    assert names and not any("pytest" in name for name in names)
    assert laptop.run(f"ls {REPOSITORY}/cluster.yaml")
    for command in (f"ls {REPOSITORY}/cluster.yaml", f"ls {tmp_path}", "touch /opt/mine"):
        with pytest.raises(AssertionError):
            one.run(command)
    one.run(f"{sys.executable} -c 'import torch'")


def test_a_cable_and_a_switch(pair: dict[str, Host]) -> None:
    one, two, laptop = pair["one"], pair["two"], pair[LAPTOP]
    one.cut_off()
    with pytest.raises(AssertionError):
        laptop.run(on(one, "true"))
    assert one.processes()
    laptop.run(on(two, "true"))
    one.reconnect()
    laptop.run(on(one, "true"))
    two.power_off()
    assert not two.processes()
    with pytest.raises(AssertionError):
        laptop.run(on(two, "true"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_they_end_with_who_made_them(how: signal.Signals, tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    code = (
        "import pathlib, signal, sys, time\n"
        "from hosts import hosts\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with hosts(['one', 'two'], pathlib.Path(sys.argv[1])) as made:\n"
        "    with made['one'].start('sleep 1000'):\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(1000)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(
        words, env=environment, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        begun = psutil.Process(process.pid).children(recursive=True)
        assert len(begun) > 10
        process.send_signal(how)
        process.wait(30)
    deadline = time.monotonic() + 30
    while any(is_alive(one) for one in begun):
        assert time.monotonic() < deadline, begun
        time.sleep(0.1)
