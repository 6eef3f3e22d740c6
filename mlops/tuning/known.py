"""Whether the insides of a library are those that were read; where they are not, a plain way is."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import version


def is_known(library: str, read_in: str, otherwise: str) -> bool:
    """Tells whether a library is of the version whose insides were read.

    Args:
        library: Its distribution's name.
        read_in: That version, such as `2.60`, of which any patch will do.
        otherwise: What is done where it is not, which is said once.
    """
    found = version(library)
    if f"{found}.".startswith(f"{read_in}."):
        return True
    _tell(f"{library} is {found}, and {read_in} was read: {otherwise}")
    return False


@cache
def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
