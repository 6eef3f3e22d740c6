"""A job on a real cluster behind a tunnel that goes dead: what is shown, what stops it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clusters import Cluster
from ray.job_submission import JobStatus
from tunnel import tunnel_to

from mlops.cluster.remote_job import RemoteJob
from mlops.errors import RemoteJobError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

HERE = Path(__file__).parent


def wait_until(done: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Follower:
    """A job that counts until it is told to end, and the process that follows it.

    Args:
        cluster: Where the job runs.
        port: Where its server is reached.
        folder: An empty one.
        flags: The job's.
        patience: Seconds without an answer until it is given up.
    """

    def __init__(
        self, cluster: Cluster, port: int, folder: Path, *flags: str, patience: float = 600
    ) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._ending, self._folder = folder / "ending", folder
        words = [sys.executable, str(HERE / "follower.py"), self.address, str(patience)]
        with (folder / "said").open("wb") as said, (folder / "result").open("wb") as result:
            self.process = subprocess.Popen(
                [*words, str(self._ending), *flags],
                cwd=HERE / "counting",
                env=cluster.environment,
                stdout=result,
                stderr=said,
            )
        self._jobs = cluster.jobs()

    @property
    def said(self) -> str:
        return (self._folder / "said").read_text()

    @property
    def result(self) -> str:
        return (self._folder / "result").read_text()

    @property
    def number(self) -> str:
        (number,) = re.findall(r"^job (\S+) at", self.said, re.MULTILINE)
        return str(number)

    @property
    def lines(self) -> list[int]:
        """The numbers of the lines that were shown, and of others that look alike."""
        return [int(number) for number in re.findall(r"line (\d+) hör\n", self.said)]

    @property
    def status(self) -> JobStatus:
        """The job's, as its server says without a tunnel."""
        return self._jobs.get_job_status(self.number)

    def wait_for_lines(self, more: int) -> None:
        enough = len(self.lines) + more
        wait_until(lambda: len(self.lines) >= enough or self.process.poll() is not None)
        assert self.process.poll() is None, self.said

    def wait_for_words(self, words: str) -> None:
        wait_until(lambda: words in self.said)

    def count_on(self, more: int) -> None:
        """Waits until the job has counted on, whether that is shown or not."""

        def counted() -> int:
            return int((self._folder / "counted").read_text() or 0)

        enough = counted() + more
        wait_until(lambda: counted() >= enough)

    def end_job(self, status: int) -> None:
        unfinished = self._ending.with_suffix(".unfinished")
        unfinished.write_text(str(status))
        unfinished.rename(self._ending)

    def has_shown_all(self) -> bool:
        """Whether each line of the job was shown, each once and in order."""
        lines = self.lines
        return lines == [*range(len(lines))] and self.said.count("line ") == len(lines)


@contextmanager
def following(
    cluster: Cluster, port: int, folder: Path, *flags: str, patience: float = 600
) -> Iterator[Follower]:
    follower = Follower(cluster, port, folder, *flags, patience=patience)
    try:
        follower.wait_for_lines(1)
        yield follower
    finally:
        follower.end_job(0)
        follower.process.kill()
        follower.process.wait()


@pytest.mark.parametrize(
    ("ends_meanwhile", "status", "delay", "flags"),
    [(False, 3, 0.0, []), (True, 0, 0.5, []), (False, 0, 0.0, ["--bytes"])],
    ids=["dead for a while", "slow, and ends while it is dead", "what is no text"],
)
def test_all_is_shown_once_whatever_the_connection_does(
    ends_meanwhile: bool,
    status: int,
    delay: float,
    flags: list[str],
    cluster: Cluster,
    tmp_path: Path,
) -> None:
    with (
        tunnel_to(cluster.head.dashboard) as tunnel,
        following(cluster, tunnel.port, tmp_path, *flags) as follower,
    ):
        tunnel.delay = delay
        follower.wait_for_lines(15)
        tunnel.go_dead()
        follower.count_on(60)
        if ends_meanwhile:
            follower.end_job(status)
            wait_until(lambda: follower.status.is_terminal())
        tunnel.come_back()
        if not (ends_meanwhile or flags):
            follower.wait_for_lines(90)
        follower.end_job(status)
        assert follower.process.wait(60) == status, follower.said
    assert follower.has_shown_all(), follower.said
    if status == 0:
        assert json.loads(follower.result) == {"last": follower.lines[-1]}
    else:
        assert json.loads(re.findall(r"^{.*}$", follower.said, re.MULTILINE)[0])
        assert f"got exit status {status}, see above" in follower.said
    assert "Traceback" not in follower.said


def test_a_tunnel_that_stays_dead(cluster: Cluster, tmp_path: Path) -> None:
    with (
        tunnel_to(cluster.head.dashboard) as tunnel,
        following(cluster, tunnel.port, tmp_path, patience=6) as follower,
    ):
        tunnel.go_dead()
        assert follower.process.wait(60) == 1, follower.said
        assert f"no answer from {follower.address} (" in follower.said
        last = follower.said.splitlines()[-1]
        assert f"error: the job {follower.number} must be within reach, got no answer" in last
        attach = f"`ray job logs --address {follower.address} --follow {follower.number}` shows it"
        assert "for 0.1 min" in last and last.endswith(f"it goes on there: {attach}")
        assert "Traceback" not in follower.said
        assert follower.status == JobStatus.RUNNING


def test_ctrl_c_leaves_the_job_also_when_nothing_answers(cluster: Cluster, tmp_path: Path) -> None:
    with (
        tunnel_to(cluster.head.dashboard) as tunnel,
        following(cluster, tunnel.port, tmp_path) as follower,
    ):
        tunnel.go_dead()
        follower.process.send_signal(signal.SIGINT)
        follower.wait_for_words("leaving the job in 2 s; Ctrl-C again stops it instead\n")
        assert follower.process.wait(60) == 130, follower.said
        attach = f"`ray job logs --address {follower.address} --follow {follower.number}` shows it"
        assert f"left the job, it goes on there: {attach}\n" in follower.said
        follower.count_on(30)
        assert follower.status == JobStatus.RUNNING


def test_sigterm_stops_the_job_if_it_is_within_reach(cluster: Cluster, tmp_path: Path) -> None:
    """A second Ctrl-C does so too, see `test_a_second_ctrl_c_stops_a_study_there`."""
    within, beyond = tmp_path / "within", tmp_path / "beyond"
    within.mkdir()
    beyond.mkdir()
    with (
        tunnel_to(cluster.head.dashboard) as tunnel,
        following(cluster, tunnel.port, beyond) as follower,
    ):
        tunnel.go_dead()
        follower.process.send_signal(signal.SIGTERM)
        follower.wait_for_words("stopping the job\n")
        assert follower.process.wait(60) == 1, follower.said
        last = follower.said.splitlines()[-1]
        stop = f"ray job stop --address {follower.address} {follower.number}"
        assert "must be within reach to be stopped, got" in last
        assert last.endswith(f"; if it goes on, `{stop}`")
        assert follower.status == JobStatus.RUNNING
    with following(cluster, cluster.head.dashboard, within) as follower:
        follower.process.send_signal(signal.SIGTERM)
        assert follower.process.wait(60) == 130, follower.said
        assert "stopping the job\n" in follower.said
        assert follower.lines == [*range(len(follower.lines))]
        assert "Traceback" not in follower.said
        assert follower.status == JobStatus.STOPPED


def test_a_job_that_the_cluster_does_not_know(cluster: Cluster) -> None:
    """One that was started anew has forgotten those before."""
    sent = RemoteJob(cluster.jobs(), "raysubmit_none", cluster.server)
    with pytest.raises(RemoteJobError, match=r"must be known at .*: Job raysubmit_none does not"):
        sent.follow()
