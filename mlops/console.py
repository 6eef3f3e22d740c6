"""What every job does around its work: messages to stderr, one JSON line to stdout, exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from mlops.errors import InputError, MlopsError


def run_job(
    job: Callable[[], Mapping[str, Any]], left: str = "what was finished is recorded"
) -> int:
    """Runs a job and reports how it went.

    Args:
        job: Does the work and returns its result, JSON values.
        left: What an interruption leaves, for the message.

    Returns:
        The exit status: 0 done, 1 failed, 2 unusable settings or input, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        result = job()
    except MlopsError as error:
        problems = error.problems if isinstance(error, InputError) else [str(error)]
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        print(f"error: the work must fit the memory, got {error}; make it smaller", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {left}", file=sys.stderr)
        return 130
    print(json.dumps(result), flush=True)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Takes SIGTERM for Ctrl-C, which a shell's background jobs ignore and Ray's jobs block."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    if not callable(on_interrupt):
        raise KeyboardInterrupt
    on_interrupt(signal.SIGINT, frame)


def leave(status: int) -> None:
    """Ends the process at once: what has to be written is written, the rest is only memory."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
