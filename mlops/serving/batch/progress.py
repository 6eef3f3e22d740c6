"""How far a table has been scored: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

# Seconds between plain lines.
LINE_SECONDS = 5.0


class RowProgress:
    """Shows how many rows are done and how long the rest may take; a context manager.

    Args:
        n_rows: Rows of the table, if known.
        stream: Where to; stderr by default.
    """

    def __init__(self, n_rows: int | None, stream: TextIO | None = None) -> None:
        self._total = "" if n_rows is None else f" of {n_rows:,}"
        self._started = self._shown_at = time.monotonic()
        self._n_rows, self._share = 0, 0.0
        console = Console(file=stream or sys.stderr, highlight=False, markup=False, emoji=False)
        self._console = console
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                BarColumn(), TextColumn("{task.description}", markup=False), console=console
            )
            self._task = self._bar.add_task(self._line(), total=1.0)

    def __enter__(self) -> RowProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif exception[0] is None:
            self._print_line()

    def show(self, n_rows: int, share: float) -> None:
        """Says that so many rows are done, and which share of the table that is."""
        self._n_rows, self._share = n_rows, share
        if self._bar is not None:
            self._bar.update(self._task, description=self._line(), completed=share)
        elif time.monotonic() - self._shown_at >= LINE_SECONDS:
            self._print_line()

    def _print_line(self) -> None:
        self._console.print(self._line(), soft_wrap=True)
        self._shown_at = time.monotonic()

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        line = f"{self._n_rows:,}{self._total} rows · {self._n_rows / seconds:,.0f} rows/s"
        if 0 < self._share < 1:
            line += f" · about {seconds / self._share - seconds:.0f} s left"
        return line
