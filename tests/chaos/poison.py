"""A worker that dies, or hangs, over one trial. It must be importable where workers run."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from mlops.tuning.trial import PackTrial

POISONOUS = 5


class PoisonedTrial(PackTrial):
    """Dies by SIGKILL, raises or hangs with trial `POISONOUS` in its pack, as POISON says."""

    def _step(self) -> dict[str, Any]:
        if any(member["number"] == POISONOUS for member in self.config["trials"]):
            match os.environ["POISON"]:
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "raise":
                    raise ArithmeticError("on purpose")
                case "hang":
                    time.sleep(1000)
        return super()._step()
