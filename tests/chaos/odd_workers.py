"""Workers that die, raise or hang over a trial, or take their time. Importable in them."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

from mlops.tuning.trial import PackTrial

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


class DelayedTrial(PackTrial):
    """Takes up to a second longer, so that packs end in any order."""

    def _step(self) -> dict[str, Any]:
        time.sleep(random.uniform(0, 1))
        return super()._step()
