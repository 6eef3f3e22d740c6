"""How many workers can one driver keep busy? By simulation: packs that sleep.

    python -m benchmarks.scaling                        # some 20 minutes
    python -m benchmarks.scaling --workers 8 --no-save

Search, Tune, record and model are real, training is a sleep. Up to 32 workers are processes of a
cluster of several raylets on this machine (`sleeping_study`); 500 are coroutines in two processes
(`crowded_study`). The driver, MLflow and they share the cores of this machine: on a real cluster
the workers have their own.

A worker is busy while it sleeps; the rest of the time it waits for the driver. The busy share is
of all workers' time from the moment when the last worker has begun until the first one has no more
to do: starting 32 processes on two cores, and the end, when packs run out, are no matter of
scaling. The share from the first pack's start to the last one's end is told beside it.

The driver's processor time is that of its main thread, which is what workers wait for, from the
first pack to the last, the searcher included. That of the whole process is told beside it. What is
in proportion to trials (searcher) and to epochs (record) and not to workers is kept small by packs
and epochs as long as those of tables that are worth so many workers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import process_tree, report
from benchmarks.contenders import environment
from benchmarks.report import Row
from benchmarks.scheduling import Timeline

LEAST_BUSY = 0.9
MOST_WAITING = 0.05
# Processor seconds of the driver a worker and minute.
MOST_DRIVER = 0.06
TRIALS_A_PACK = 4


@dataclass(frozen=True)
class Study:
    """A study of workers that sleep, some time of a pack and of an epoch, in seconds."""

    module: str
    workers: int
    seconds: float
    packs_a_worker: int
    epoch: float = 1.0

    def __str__(self) -> str:
        how = ", simulated" if self.module == "crowded_study" else ""
        packs = f"{self.packs_a_worker * self.workers:,} packs of {TRIALS_A_PACK} trials"
        return f"{self.workers} workers{how}, {packs}, {self.seconds:g} s each"


SHORT = [Study("sleeping_study", workers, 5.0, 12) for workers in (2, 8, 32)]
LONG = [Study("sleeping_study", 32, 30.0, 4), Study("crowded_study", 500, 120.0, 3, 30.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, nargs="+", help="only studies of so many workers")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    rows, details = [], []
    for study in [*SHORT, *LONG]:
        if args.workers is None or study.workers in args.workers:
            figures = run(study)
            rows += busy_rows(study, figures) if study in SHORT else driver_rows(study, figures)
            details.append({**asdict(study), **figures})
    report.finish("scaling", "Scaling, simulated", rows, {"studies": details}, not args.no_save)


def busy_rows(study: Study, figures: dict[str, Any]) -> Iterator[Row]:
    """Say whether workers work."""
    yield Row(
        f"{study}: share of the time in which workers work",
        f">= {LEAST_BUSY:.0%}",
        f"{figures['efficiency']:.1%}, over {figures['window']:.0f} s; "
        f"{figures['whole']:.1%} of the whole search",
        figures["efficiency"] >= LEAST_BUSY,
    )


def driver_rows(study: Study, figures: dict[str, Any]) -> Iterator[Row]:
    """Say what the driver takes, and how long workers wait for it."""
    yield Row(
        f"{study}: driver's processor seconds a worker and minute",
        f"<= {MOST_DRIVER:g}",
        f"{figures['driver']:.3f}, of them {figures['searcher']:.3f} for the searcher; "
        f"{figures['process']:.3f} of the whole process",
        figures["driver"] <= MOST_DRIVER,
    )
    waiting = 1 - figures["efficiency"]
    yield Row(
        f"{study}: share of the time in which workers wait for it",
        f"<= {MOST_WAITING:.0%}",
        f"{waiting:.1%}, over {figures['window']:.0f} s",
        waiting <= MOST_WAITING,
    )


def run(study: Study) -> dict[str, Any]:
    """Run a study in a process of its own and return its figures."""
    variables = {**environment(), "RAY_AUTH_MODE": "disabled"}
    variables |= {"SLEEP_SECONDS": str(study.seconds), "SLEEP_EPOCH": str(study.epoch)}
    trials = study.packs_a_worker * study.workers * TRIALS_A_PACK
    job = [sys.executable, "-m", f"benchmarks.{study.module}", str(study.workers)]
    job += ["--max_evals", str(trials), "--pack_size", str(TRIALS_A_PACK)]
    with tempfile.TemporaryDirectory(prefix="scaling-", ignore_cleanup_errors=True) as folder:
        done = process_tree.measure(job, Path(folder), variables, pss_interval=60.0)
        if done.exit_code != 0 or done.result is None:
            sys.stderr.write((Path(folder) / "stderr.txt").read_text()[-4000:])
            raise SystemExit(f"{' '.join(job)} ended with exit status {done.exit_code}")
        return figures_of(Timeline.from_json(done.result["timeline"])) | {"wall": done.wall}


def figures_of(line: Timeline) -> dict[str, Any]:
    """Work out how busy the workers were, and what the driver took a worker and minute."""
    spans: dict[int, list[tuple[float, float]]] = {}
    for process, began, ended in line.training:
        spans.setdefault(process, []).append((began, ended))
    last_start = max(min(began for began, _ in own) for own in spans.values())
    first_end = min(max(ended for _, ended in own) for own in spans.values())
    begin, end = min(b for _, b, _ in line.training), max(e for _, _, e in line.training)

    def busy(start: float, stop: float) -> float:
        slept = sum(max(0.0, min(e, stop) - max(b, start)) for _, b, e in line.training)
        return slept / (line.workers * (stop - start))

    worker_minutes = line.workers * (end - begin) / 60
    return {
        "reports": len(line.training),
        "efficiency": busy(last_start, first_end),
        "window": first_end - last_start,
        "whole": busy(begin, end),
        "driver": line.driver_cpu / worker_minutes,
        "searcher": line.search_cpu / worker_minutes,
        "process": line.process_cpu / worker_minutes,
    }


if __name__ == "__main__":
    main()
