"""How many workers can one driver keep busy? By simulation: packs that sleep.

    python -m benchmarks.scaling                        # 2, 8 and 32 workers
    python -m benchmarks.scaling --workers 8 --no-save

Search, Tune, record and model are real, training is a sleep, and the cluster is one of several
raylets on this machine. So up to 32 workers, the driver and MLflow share the cores of this machine:
on a real cluster the workers have their own.

A worker is busy while it sleeps. Efficiency is the busy share of all workers' time from the moment
when the last worker has begun until the first one has no more to do: starting 32 processes on two
cores, and the end, when packs run out, are no matter of scaling. The share from the first pack's
start to the last one's end is told beside it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import process_tree, report
from benchmarks.contenders import environment
from benchmarks.report import Row
from benchmarks.scheduling import Timeline

LEAST = 0.9
TRIALS_A_PACK = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--seconds", type=float, default=5.0, help="of a pack")
    parser.add_argument("--packs", type=int, default=12, help="packs a worker")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    rows, details = [], {}
    for workers in args.workers:
        figures = run(workers, args.seconds, args.packs * workers)
        measured = (
            f"{figures['efficiency']:.1%}, over {figures['window']:.0f} s; "
            f"{figures['whole']:.1%} of the whole search"
        )
        study = f"{workers} workers, {args.packs * workers} packs of {TRIALS_A_PACK} trials"
        measure = f"{study}, {args.seconds:g} s each: share of the time in which workers work"
        reached = figures["efficiency"] >= LEAST
        rows.append(Row(measure, f">= {LEAST:.0%}", measured, reached))
        details[str(workers)] = figures
    report.finish("scaling", "Scaling, simulated", rows, {"studies": details}, not args.no_save)


def run(workers: int, seconds: float, packs: int) -> dict[str, Any]:
    """Run a study in a process of its own and return its figures."""
    variables = {**environment(), "RAY_AUTH_MODE": "disabled", "SLEEP_SECONDS": str(seconds)}
    trials, size = str(packs * TRIALS_A_PACK), str(TRIALS_A_PACK)
    job = [sys.executable, "-m", "benchmarks.sleeping_study", str(workers)]
    job += ["--max_evals", trials, "--pack_size", size]
    with tempfile.TemporaryDirectory(prefix="scaling-", ignore_cleanup_errors=True) as folder:
        done = process_tree.measure(job, Path(folder), variables, pss_interval=60.0)
        if done.exit_code != 0 or done.result is None:
            sys.stderr.write((Path(folder) / "stderr.txt").read_text()[-4000:])
            raise SystemExit(f"{' '.join(job)} ended with exit status {done.exit_code}")
        return figures_of(Timeline.from_json(done.result["timeline"])) | {"wall": done.wall}


def figures_of(line: Timeline) -> dict[str, Any]:
    """Work out how busy the workers were."""
    spans: dict[int, list[tuple[float, float]]] = {}
    for process, began, ended in line.training:
        spans.setdefault(process, []).append((began, ended))
    last_start = max(min(began for began, _ in own) for own in spans.values())
    first_end = min(max(ended for _, ended in own) for own in spans.values())
    begin, end = min(b for _, b, _ in line.training), max(e for _, _, e in line.training)

    def busy(start: float, stop: float) -> float:
        slept = sum(max(0.0, min(e, stop) - max(b, start)) for _, b, e in line.training)
        return slept / (line.workers * (stop - start))

    return {
        "workers": line.workers,
        "processes": len(spans),
        "efficiency": busy(last_start, first_end),
        "window": first_end - last_start,
        "whole": busy(begin, end),
        "search_cpu": line.search_cpu,
        "driver_cpu": line.driver_cpu,
    }


if __name__ == "__main__":
    main()
