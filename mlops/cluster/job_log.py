"""The log of a job on a cluster: each line is shown once, however often the log is read."""

from __future__ import annotations

import sys
from array import array


class JobLog:
    """The lines that a job writes: shown as they come, but for its result, a last line of JSON.

    A job server gives a log from its beginning only. A line is known by its place and its hash, so
    what was shown is left out when it comes again; of a log that has been cut or begun anew
    meanwhile, all from the first other line on is shown. That takes 8 bytes a line.

    Attributes:
        result: The last line of JSON so far; empty if there is none.
    """

    def __init__(self) -> None:
        self.result = ""
        self._known = array("q")
        self._place = 0
        self._unfinished: list[str] = []

    def begin_again(self) -> None:
        """Expects the log from its beginning."""
        self._place = 0
        self._unfinished = []

    def add(self, text: str) -> bool:
        """Takes the next piece, which may end anywhere; tells whether it has brought a new line."""
        ended, newline, unfinished = text.rpartition("\n")
        if not newline:
            self._unfinished.append(text)
            return False
        lines = "".join([*self._unfinished, ended]).split("\n")
        self._unfinished = [unfinished]
        new = [self._take(line) for line in lines]
        return any(new)

    def end(self) -> None:
        """Takes what was last, which no newline ends."""
        if last := "".join(self._unfinished):
            self._take(last)

    def _take(self, line: str) -> bool:
        mark, place = hash(line), self._place
        self._place += 1
        if place < len(self._known) and self._known[place] == mark:
            return False
        del self._known[place:]
        self._known.append(mark)
        if not line.startswith("{"):
            print(line, file=sys.stderr, flush=True)
            return True
        if self.result:
            print(self.result, file=sys.stderr, flush=True)
        self.result = line
        return True
