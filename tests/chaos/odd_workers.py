"""Workers that die, raise, hang or stand still, or take their time. Importable in them."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlops.tuning.training.trial import PackTrial

KILLS, RAISES, HANGS = 1, 9, 18


class PoisonedTrial(PackTrial):
    """Fails, one way or another, whenever a poisonous trial is in its pack."""

    def _step(self) -> dict[str, Any]:
        for member in self.config["trials"]:
            match member["number"]:
                case number if number == KILLS:
                    os.kill(os.getpid(), signal.SIGKILL)
                case number if number == RAISES:
                    raise ArithmeticError("on purpose")
                case number if number == HANGS:
                    time.sleep(1000)
        return super()._step()


class UnluckyTrial(PackTrial):
    """Three mishaps, each once: a folder that `CHAOS` names says which have been."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if happens("between packs"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset_config(new_config)

    def _step(self) -> dict[str, Any]:
        if self.config["pack"] == 1 and happens("standing still"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.config["pack"] == 4 and happens("with a slow neighbour"):
            time.sleep(6)
        report = super()._step()
        if self.config["pack"] == 5 and report["done"] and happens("idle"):
            threading.Timer(2, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return report


class ShortLivedTrial(PackTrial):
    """Dies when it is to take its second pack, three times."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if any(happens(f"idle, {n}") for n in range(3)):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset_config(new_config)


def happens(mishap: str) -> bool:
    """Whether it is the first time."""
    try:
        (Path(os.environ["CHAOS"]) / mishap).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class DelayedTrial(PackTrial):
    """Takes up to a second longer, so that packs end in any order."""

    def _step(self) -> dict[str, Any]:
        time.sleep(random.uniform(0, 1))
        return super()._step()


class LeisurelyTrial(PackTrial):
    """Takes two seconds longer, so that machines can come and go meanwhile."""

    def _step(self) -> dict[str, Any]:
        time.sleep(2)
        return super()._step()


class SlowTrial(PackTrial):
    """Takes 0.05 s longer for each epoch of a group, so that a pack takes some reports."""

    def _train(self, *given: Any) -> Iterator[list[Any]]:
        for events in super()._train(*given):
            time.sleep(0.05 if events else 0)
            yield events
