"""Machines that join and leave in mid-study."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos_harness import environment, start_with, table
from servers import RayHead, free_port, ray_head, ray_node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

OPEN_TO_ALL = {"RAY_AUTH_MODE": "disabled"}


def trains(machine: subprocess.Popen[bytes]) -> bool:
    """Whether a machine has a worker with a pack."""
    for process in psutil.Process(machine.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if re.match(r"ray::\S+\.train", " ".join(process.cmdline())):
                return True
    return False


def wait_until_it_trains(machine: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while not trains(machine):
        assert time.monotonic() < deadline, "the machine got no pack in 90 s"
        time.sleep(0.05)


def switch_off(machine: subprocess.Popen[bytes]) -> None:
    """Kills a machine's processes, all at once."""
    for process in psutil.Process(machine.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def join(stack: ExitStack, head: RayHead, *flags: str) -> subprocess.Popen[bytes]:
    """Starts a machine of a cluster."""
    flags = ("--address", head.address, *flags)
    flags += ("--dashboard-agent-listen-port", str(free_port()))
    return stack.enter_context(ray_node(environment(**OPEN_TO_ALL), *flags))


def test_a_machine_joins_and_the_first_one_leaves(
    tmp_path: Path, uri: str, undisturbed: dict[int, Any]
) -> None:
    """The study begins with one worker of its two; it ends with the other one alone."""
    with ExitStack() as stack:
        head = stack.enter_context(ray_head(environment(**OPEN_TO_ALL), cpus=0))
        first = join(stack, head, "--num-cpus", "1")
        driver = start_with("LeisurelyTrial", tmp_path, RAY_ADDRESS=head.address, **OPEN_TO_ALL)
        stack.callback(driver.kill)
        wait_until_it_trains(first)
        assert " of 2 workers fit the cluster now" in driver.said()
        second = join(stack, head, "--num-cpus", "1")
        wait_until_it_trains(second)
        assert driver.process.poll() is None
        switch_off(first)
        assert driver.process.wait(200) == 0, driver.said()
    assert table(uri) == undisturbed
