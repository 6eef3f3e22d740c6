"""`ray_jobs.tune` on hundreds of workers that sleep in a few processes: what `scaling.py` runs.

python -m benchmarks.crowded_study WORKERS [flags of ray_jobs.tune]

A real worker is a process of 100 MB, so this machine cannot hold 500. Here a few actors hold them
all, each as a coroutine. For the driver nothing changes: each worker has its placement group, its
calls are calls of Ray's to another process, its reports are as large, and come as often.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import Any

import ray
from ray.actor import ActorClass

from benchmarks import scheduled_study
from benchmarks.sleeping_study import SleepingTrial
from mlops.console import leave, run_job
from mlops.tuning.training import controller

HOSTS = 2
# All workers share the two logical cores of a cluster that is this machine alone.
CORES = 2


class DozingTrial(SleepingTrial):
    """Has slept already when it is to."""

    span: tuple[int, float, float]

    def step(self) -> dict[str, Any]:
        return self.told(self.span)


@ray.remote(num_cpus=0, max_concurrency=10_000)
class Host:
    """Holds workers."""

    def __init__(self) -> None:
        self._workers: dict[int, DozingTrial] = {}

    async def create(self, worker: int, trainable: Any, named: dict[str, Any]) -> None:
        self._workers[worker] = trainable(**named)

    async def call(self, worker: int, method: str, *args: Any, **named: Any) -> Any:
        return getattr(self._workers[worker], method)(*args, **named)

    async def train(self, worker: int) -> Any:
        trial, began = self._workers[worker], time.monotonic()
        await asyncio.sleep(trial.next_sleep())
        trial.span = (worker, began, time.monotonic())
        return trial.train()

    async def stop(self, worker: int) -> None:
        self._workers.pop(worker).stop()


class Workers(ActorClass):  # type: ignore[type-arg]
    """Makes workers on hosts, as an actor class of Ray's does in processes."""

    def __init__(self, trainable: Any) -> None:
        self._trainable = ray.put(trainable)
        self._hosts = [Host.remote() for _ in range(HOSTS)]
        self._numbers = itertools.count()

    def options(self, **named: Any) -> Workers:
        return self

    def remote(self, **named: Any) -> Worker:
        number = next(self._numbers)
        return Worker(self._hosts[number % HOSTS], number, self._trainable, named)


class Worker:
    """A handle of one, as far as Tune uses it."""

    def __init__(self, host: Any, number: int, *given: Any) -> None:
        self._host, self._number = host, number
        self._made = host.create.remote(number, *given)

    def __getattr__(self, name: str) -> Method:
        return Method(self._host, name, self._number, self._made)


class Method:
    """A method of a worker."""

    def __init__(self, host: Any, name: str, number: int, made: Any) -> None:
        self._host, self._name, self._number, self._made = host, name, number, made

    def remote(self, *args: Any, **named: Any) -> Any:
        if self._name == "__ray_ready__":
            return self._made
        if self._name in ("train", "stop"):
            return getattr(self._host, self._name).remote(self._number)
        return self._host.call.remote(self._number, self._name, *args, **named)


class _Classes(controller._PlainActorClasses):
    def get(self, trainable_cls: type) -> Any:
        if trainable_cls not in self._cache:
            self._cache[trainable_cls] = Workers(trainable_cls)
        return self._cache[trainable_cls]


def main(argv: list[str]) -> dict[str, Any]:
    workers, flags = int(argv[0]), argv[1:]
    scheduled_study.TimedTrial = DozingTrial  # type: ignore[misc]
    controller._PlainActorClasses = _Classes  # type: ignore[misc]
    cores = ["--resources.workers", str(workers), "--resources.cpus_per_worker"]
    return scheduled_study.main([*flags, *cores, f"{CORES / workers:.4f}"])


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
