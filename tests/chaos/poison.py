"""Workers that die, raise or hang over a trial. This must be importable where workers run."""

from __future__ import annotations

import os
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
