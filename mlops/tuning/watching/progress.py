"""How a study's progress is shown: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from ray.tune import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mlops.nn.records import Outcome
from mlops.tuning.watching.ledger import Ledger, Row

# Seconds between plain lines, and between redraws.
LINE_SECONDS = 5.0
DRAW_SECONDS = 0.25


class Progress(Callback):
    """Shows the ledger as the study goes on; a context manager.

    Args:
        ledger: What to show; must come before this among the callbacks.
        title: The study's name and what it trains on.
        stream: Where to; stderr by default.
    """

    def __init__(self, ledger: Ledger, title: str, stream: TextIO | None = None) -> None:
        self._ledger, self._title = ledger, title
        # A title is shown as it is, whatever brackets and colons a file's name has.
        self._console = Console(
            file=stream or sys.stderr, highlight=False, markup=False, emoji=False
        )
        self._live: Live | None = None
        self._shown_at = 0.0
        self._shown: tuple[int, int | None, str] = (-1, None, "")
        self._over = False

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(self._panel(), console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        else:
            self._console.print(self._title, soft_wrap=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._over = True
        if self._live is not None:
            self._live.update(self._panel(), refresh=True)
            self._live.stop()
        else:
            self._print_line()

    def on_step_end(self, **info: Any) -> None:
        """Redraws now and then."""
        now = time.monotonic()
        if self._live is not None:
            if now - self._shown_at >= DRAW_SECONDS:
                self._live.update(self._panel(), refresh=True)
                self._shown_at = now
        elif now - self._shown_at >= LINE_SECONDS:
            self._print_line()

    def _print_line(self) -> None:
        """Prints where the study is, unless the last line says it."""
        ledger = self._ledger
        state = (ledger.ended, ledger.best.trial if ledger.best else None, self._counts())
        if state != self._shown:
            self._console.print(self._line(), soft_wrap=True)
            self._shown, self._shown_at = state, time.monotonic()

    def _line(self) -> str:
        ledger = self._ledger
        parts = [f"{ledger.ended}/{ledger.max_evals} trials"]
        if ledger.best is not None:
            parts.append(f"best {ledger.metric} {ledger.best.score:.4f} by {describe(ledger.best)}")
        if ledger.epochs:
            parts.append(f"{self._rate():,.0f} epochs/s")
        if self._over and self._counts():
            parts.append(self._counts())
        left = self._seconds_left()
        if left:
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)

    def _panel(self) -> Group:
        ledger = self._ledger
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=ledger.max_evals, completed=ledger.ended, width=40),
            Text(f"{ledger.ended}/{ledger.max_evals} trials", style="bold"),
            Text(f"{self._rate():,.0f} epochs/s" if ledger.epochs else "", style="cyan"),
            Text(self._clock(), style="dim"),
        )
        lines: list[Any] = [Text(self._title, style="bold"), bar]
        counts = self._counts()
        if counts:
            lines.append(Text(counts, style="yellow"))
        lines.append(self._leaders())
        return Group(*lines)

    def _leaders(self) -> Table:
        """The best few trials."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in (self._ledger.metric, "trial", "epoch", "configuration"):
            table.add_column(column, justify="left" if column == "configuration" else "right")
        for i, row in enumerate(self._ledger.leaders(3)):
            style = "bold green" if i == 0 else ""
            table.add_row(
                f"{row.score:.4f}",
                str(row.trial),
                str(row.best_epoch),
                describe_params(row),
                style=style,
            )
        return table

    def _counts(self) -> str:
        outcomes = self._ledger.outcomes()
        told = (Outcome.PRUNED, Outcome.FAILED, Outcome.INTERRUPTED)
        return " · ".join(f"{outcomes[o.value]} {o.value}" for o in told if o.value in outcomes)

    def _rate(self) -> float:
        """Epochs a second since the first pack started."""
        since = self._ledger.training_since or self._ledger.started
        return self._ledger.epochs / max(time.monotonic() - since, 1e-9)

    def _elapsed(self) -> float:
        return time.monotonic() - self._ledger.started

    def _seconds_left(self) -> float:
        """Extrapolates from the epochs trained, each trial counting as the average one."""
        ledger = self._ledger
        if self._over or not ledger.epochs or not 0 < ledger.ended < ledger.max_evals:
            return 0.0
        left = ledger.max_evals - ledger.ended_before
        expected = ledger.epochs_of_ended / ledger.ended * left
        return max(0.0, expected - ledger.epochs) / max(self._rate(), 1e-9)

    def _clock(self) -> str:
        left = self._seconds_left()
        elapsed = duration(self._elapsed())
        return f"{elapsed}, about {duration(left)} left" if left else elapsed


def describe(row: Row) -> str:
    """Names a trial and its configuration."""
    return f"trial {row.trial} ({describe_params(row)})"


def describe_params(row: Row) -> str:
    """Returns a configuration in a few words, such as `[64, 32] lr 0.0031 batch 32`."""
    params = row.params
    words = [
        str(params["hidden_dims"]),
        f"lr {params['learning_rate']:.2g}",
        f"batch {params['batch_size']}",
        f"dropout {params['dropout']:.2g}",
        f"decay {params['weight_decay']:.1g}",
    ]
    if params["activation"] != "relu":
        words.append(params["activation"])
    return " ".join(words)


def duration(seconds: float) -> str:
    """Returns 75 as `1:15 min`."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
