"""What Ray tells a driver of its cluster's machines, in a line each, on stderr.

It prints that in each driver, whatever it is told of logs: of a machine that was lost, for one, the
last lines of its log and a dump of its stack. How it prints was read in Ray 2.60.
"""

from __future__ import annotations

import sys
from typing import Any

from mlops.errors import first_line


def shorten() -> None:
    """Lets Ray tell it so; one that prints otherwise goes on as it does."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _tell


def _tell(news: dict[str, Any], ignore_prefix: bool) -> None:
    text = first_line(Exception("\n".join(news["lines"])))
    print(f"Ray: {text}", file=sys.stderr, flush=True)
