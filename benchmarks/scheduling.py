"""Do workers wait for suggestions in a study of thousands of tiny trials?

    python -m benchmarks.scheduling                        # 3,000 trials of one epoch on 200 rows
    python -m benchmarks.scheduling --trials 300 --no-save
    python -m benchmarks.scheduling --algorithm random     # what is left without a model

Runs `ray_jobs.tune` cold, in a fresh folder, with searcher, trainable and logger replaced by ones
that also note the time, in memory. The table is synthetic and as large as leaves 200 rows to train
on when validation and test rows are taken away (16 and 20% of 312).

The search phase lasts from the moment the first worker begins to train, its imports over, to the
end of the last pack. A worker is idle in it while it does not run code of ours. It waits for
suggestions while it is idle and the searcher is at work (is told scores, models, proposes) or has
nothing to propose until an earlier pack ends. The rest of its idle time is Ray Tune's turnaround,
which is longer while the record takes its turns in the driver.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import process_tree, report
from benchmarks.contenders import SEED_TASK, environment
from benchmarks.report import Row

MARKS = (100, 1000, 3000)
MOST_WAITING = 0.15
# ray_jobs.tune trains on 64% of the rows.
TRAINING_SHARE = 0.64

Span = tuple[float, float]
"""From and to, in seconds of the machine's monotonic clock, which all its processes share."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=200, help="rows to train on")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--algorithm", default="hyperopt")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    settings = {
        "config": SEED_TASK,
        "max_evals": args.trials,
        "epochs": args.epochs,
        "seed": args.seed,
        "data.synthetic.n_samples": round(args.rows / TRAINING_SHARE),
        "search.algorithm": args.algorithm,
        "resources.workers": args.workers,
    }
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    figures = run(flags)
    rows = rows_of(figures, f"{args.trials:,} trials of {args.epochs} epoch on {args.rows} rows")
    report.finish("scheduling", "Scheduling", rows, figures, save=not args.no_save)


def run(flags: Sequence[str]) -> dict[str, Any]:
    """Run the study in a process of its own and return its figures."""
    job = [sys.executable, "-m", "benchmarks.scheduled_study", *flags]
    with tempfile.TemporaryDirectory(prefix="scheduling-", ignore_cleanup_errors=True) as folder:
        done = process_tree.measure(job, Path(folder), environment(), pss_interval=60.0)
        if done.exit_code != 0 or done.result is None:
            sys.stderr.write((Path(folder) / "stderr.txt").read_text()[-4000:])
            raise SystemExit(f"{' '.join(job)} ended with exit status {done.exit_code}")
        figures = figures_of(Timeline.from_json(done.result.pop("timeline")))
        records = done.result["trials"] * done.result["best"]["epochs"]
        figures["tracking_cpu"] = done.result["tracking_seconds_per_record"] * records
        return {**figures, "wall": done.wall, "cpu": done.cpu, "best": done.result["best"]}


@dataclass
class Timeline:
    """What happened when.

    Attributes:
        workers: How many packs are trained at the same time.
        searching: The searcher at work.
        stalled: The searcher without anything to propose, although a worker is free.
        training: Process and span of all that workers did, by their clocks.
        ended: When the driver knew of a pack's end, and its trials.
        search_cpu: Processor time of the searcher.
        driver_cpu: Processor time of the driver's main thread in the search phase.
        process_cpu: That of all its threads.
        closing: Seconds that writing the record took after the search.
    """

    workers: int = 1
    searching: list[Span] = field(default_factory=list)
    stalled: list[Span] = field(default_factory=list)
    training: list[tuple[int, float, float]] = field(default_factory=list)
    ended: list[tuple[float, int]] = field(default_factory=list)
    search_cpu: float = 0.0
    driver_cpu: float = 0.0
    process_cpu: float = 0.0
    closing: float = 0.0

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Timeline:
        return cls(**fields)


def figures_of(line: Timeline) -> dict[str, Any]:
    """Work out rates and shares."""
    begin, end = min(a for _, a, _ in line.training), max(at for at, _ in line.ended)
    wall = end - begin
    capacity = line.workers * wall
    idle = [
        gap
        for process in {process for process, _, _ in line.training}
        for gap in gaps([(a, b) for p, a, b in line.training if p == process], begin, end)
    ]
    waiting = overlap(idle, merged([*line.searching, *line.stalled]))
    busy = sum(b - a for _, a, b in line.training)
    finished = sorted((at - begin, n) for at, n in line.ended)
    return {
        "workers": line.workers,
        "packs": len(line.ended),
        "search_wall": wall,
        "waiting_share": waiting / capacity,
        "busy_share": busy / capacity,
        "search_cpu": line.search_cpu,
        "driver_cpu": line.driver_cpu,
        "closing": line.closing,
        "trials_per_second": {
            mark: rates(finished, mark) for mark in MARKS if mark <= sum(n for _, n in finished)
        },
    }


def rates(finished: Sequence[tuple[float, int]], mark: int) -> dict[str, float]:
    """Return trials/s from the start to `mark` trials, and over the last quarter of them."""
    seconds, trials = time_of(finished, mark)
    seconds_before, before = time_of(finished, 0.75 * mark)
    late = (trials - before) / (seconds - seconds_before) if trials > before else trials / seconds
    return {"from_start": trials / seconds, "lately": late}


def time_of(finished: Sequence[tuple[float, int]], mark: float) -> tuple[float, int]:
    """Return when at least `mark` trials had finished, and how many had."""
    totals = itertools.accumulate(trials for _, trials in finished)
    pairs = zip(finished, totals, strict=True)
    return next((seconds, total) for (seconds, _), total in pairs if total >= mark)


def gaps(spans: Sequence[Span], begin: float, end: float) -> list[Span]:
    """Return what the spans leave of the time from `begin` to `end`."""
    edges = [begin, *(edge for span in merged(spans) for edge in span), end]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


def merged(spans: Sequence[Span]) -> list[Span]:
    """Return the same time as spans that do not touch, in order."""
    whole: list[Span] = []
    for a, b in sorted(spans):
        if whole and a <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(b, whole[-1][1]))
        else:
            whole.append((a, b))
    return whole


def overlap(spans: Sequence[Span], others: Sequence[Span]) -> float:
    """Return how long spans, each for itself, and the others, taken together, meet."""
    return sum(max(0.0, min(b, d) - max(a, c)) for a, b in spans for c, d in others)


def rows_of(figures: dict[str, Any], study: str) -> list[Row]:
    share = figures["waiting_share"]
    rows = [
        Row(
            f"{study}: share of wall time in which workers wait for suggestions",
            f"<= {MOST_WAITING:.0%}",
            f"{share:.1%} of {figures['workers']} x {figures['search_wall']:.1f} s; "
            f"training {figures['busy_share']:.1%}",
            share <= MOST_WAITING,
        )
    ]
    for mark, rate in figures["trials_per_second"].items():
        measured = f"{rate['from_start']:.0f} from the start, {rate['lately']:.0f} lately"
        rows.append(Row(f"trials/s at {mark:,} finished", "-", measured))
    where = (
        f"searcher {figures['search_cpu']:.1f}, the rest of the driver's main thread "
        f"{figures['driver_cpu'] - figures['search_cpu']:.1f}, record "
        f"{figures['tracking_cpu']:.1f}; whole tree {figures['cpu']:.0f}"
    )
    rows.append(Row("processor time in the driver, s", "-", where))
    whole = f"{figures['wall']:.0f}, of which writing after the search {figures['closing']:.1f}"
    rows.append(Row("whole process, s", "-", whole))
    return rows


if __name__ == "__main__":
    main()
