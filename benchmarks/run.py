"""Measure everything the project promises, against the same study written without it.

    python -m benchmarks.run                             # all of it: about half an hour on 2 cores
    python -m benchmarks.run --quick                     # one round of 4 trials, nothing saved
    python -m benchmarks.run --only study-20 --contenders ours a --repeats 5

Each study is a cold process in a fresh folder, so that starting, creating the MLflow database and
leaving are part of its time. The contenders take turns, in another order each round, with the
round as their seed. It reports; it never fails on a slow figure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine, process_tree, report
from benchmarks.comparators import seed_task
from benchmarks.contenders import CONTENDERS, REPOSITORY, environment
from benchmarks.process_tree import Measurement
from benchmarks.report import Row

STUDIES = {"study-20": 20, "study-200": 200}
OTHERS = {
    "pack-speed": "benchmarks.pack_speed",
    "memory": "benchmarks.memory",
    "search-quality": "benchmarks.search_quality",
}
Runs = dict[str, list[Measurement]]


def main() -> None:
    args = parse_arguments()
    warm_up()
    rows: list[Row] = []
    text: list[str] = []
    data: dict[str, Any] = {}
    runs_by_size: dict[int, Runs] = {}
    for name, trials in STUDIES.items():
        if name in args.only:
            trials = 4 if args.quick else trials
            entrants = choose_entrants(args, trials)
            runs = runs_by_size[trials] = run_rounds(entrants, trials, args.repeats)
            scaled = scale_sequential(args, trials, runs_by_size)
            rows += study_rows(trials, runs, scaled)
            text.append(study_table(trials, runs, scaled))
            data[name] = {
                "runs": {entrant: [m.to_json() for m in done] for entrant, done in runs.items()},
                "scaled_seconds": scaled,
            }
    rows += tracking_rows(runs_by_size)
    for name, module in OTHERS.items():
        if name in args.only:
            data[name] = run_other(module)
            rows += [Row(**row) for row in data[name]["rows"]]
    about = machine.describe()
    document = "\n\n".join(
        ["# Benchmarks", machine.one_line(about), report.rows_table(rows), *text, NOTES]
    )
    print(document)
    if not args.quick:
        # A part must not overwrite the whole.
        whole = set(args.only) == {*STUDIES, *OTHERS} and set(args.contenders) == set(CONTENDERS)
        name = "bench" if whole else "_".join(["bench", *args.only])
        report.write(name, document + "\n", {"machine": about, **data})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = [*STUDIES, *OTHERS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--sequential-200",
        choices=["scaled", "measured"],
        default="scaled",
        help="(a) at 200 trials: start-up + 10 x the fit of its 20 trials, or really run",
    )
    parser.add_argument("--quick", action="store_true", help="try it out; saves nothing")
    args = parser.parse_args()
    if args.quick:
        args.repeats, args.only = 1, ["study-20"]
    return args


def warm_up() -> None:
    """Bring the libraries' files into the page cache, so that round 1 is like the others."""
    imports = "import torch, mlflow.store.tracking.sqlalchemy_store, ray.tune, sklearn, optuna"
    subprocess.run([sys.executable, "-c", imports], check=False, stderr=subprocess.DEVNULL)


def choose_entrants(args: argparse.Namespace, trials: int) -> list[str]:
    """Name the contenders that really run a study of this size."""
    if trials != STUDIES["study-200"]:
        return list(args.contenders)
    slow = {"b"} | ({"a"} if args.sequential_200 == "scaled" else set())
    return [name for name in args.contenders if name not in slow]


def run_rounds(entrants: list[str], trials: int, repeats: int) -> Runs:
    """Run every entrant `repeats` times, taking turns; keep the runs that ended well."""
    runs: Runs = {name: [] for name in entrants}
    for repeat in range(repeats):
        shift = repeat % max(len(entrants), 1)
        for name in entrants[shift:] + entrants[:shift]:
            measurement = run_once(name, trials, seed=repeat)
            if measurement.exit_code == 0:
                runs[name].append(measurement)
    return runs


def run_once(name: str, trials: int, seed: int) -> Measurement:
    """Run one entrant in a fresh folder and say how it went."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        directory = Path(folder)
        command = CONTENDERS[name].command(trials, seed)
        measurement = process_tree.measure(command, directory, environment())
        if name == "ours" and measurement.result is not None:
            measurement.result.update(record_of(directory / "mlflow.db"))
        progress(
            f"{trials} trials, {name}: {measurement.wall:.1f} s, cpu {measurement.cpu:.1f} s, "
            f"peak {measurement.peak_pss / 1e6:.0f} MB, exit {measurement.exit_code}"
        )
        if measurement.exit_code != 0:
            progress("".join((directory / "stderr.txt").read_text().splitlines(True)[-20:]))
        return measurement


def record_of(database: Path) -> dict[str, Any]:
    """Count what our study put on record, so that a study which did less shows in the table."""
    if not database.exists():
        return {}
    child = "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId'"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        sizes = connection.execute(
            f"SELECT value FROM params WHERE key = 'batch_size' AND run_uuid IN ({child})"
        ).fetchall()
        (epochs,) = connection.execute(
            f"SELECT count(*) FROM metrics WHERE key = 'val_loss' AND run_uuid IN ({child})"
        ).fetchone()
    steps = seed_task.gradient_steps([int(size) for (size,) in sizes])
    return {"gradient_steps": steps, "child_runs": len(sizes), "epoch_records": epochs}


def scale_sequential(
    args: argparse.Namespace, trials: int, runs_by_size: dict[int, Runs]
) -> dict[str, float]:
    """Estimate (a) at 200 trials from its runs of 20, where it was not run.

    The trials are scaled, the start is not. TPE's growing cost is left out, in (a)'s favour.
    """
    small = runs_by_size.get(STUDIES["study-20"], {}).get("a", [])
    if trials != STUDIES["study-200"] or args.sequential_200 == "measured" or not small:
        return {}
    factor = trials / STUDIES["study-20"]
    estimates = [
        run.wall + (factor - 1) * run.result["study_seconds"] for run in small if run.result
    ]
    return {"a": median(estimates)} if estimates else {}


def study_rows(trials: int, runs: Runs, scaled: dict[str, float]) -> list[Row]:
    """Compare ours with each contender that has a target at this size."""
    if not runs.get("ours"):
        return []
    own = median(run.wall for run in runs["ours"])
    rows = []
    for name, contender in CONTENDERS.items():
        target = contender.targets.get(trials)
        if target is None or not (runs.get(name) or name in scaled):
            continue
        other = scaled.get(name) or median(run.wall for run in runs[name])
        how = ", scaled from 20 trials" if name in scaled else ""
        rows.append(
            Row(
                measure=f"{trials} trials, whole process, against ({name})",
                target=f">= {target:g}x faster",
                measured=f"{other / own:.1f}x ({own:.1f} s against {other:.1f} s{how})",
                reached=other / own >= target,
            )
        )
    return rows


def study_table(trials: int, runs: Runs, scaled: dict[str, float]) -> str:
    """Tabulate what each contender took, medians over its runs."""
    header = ["contender", "wall, s", "range, s", "CPU, s", "peak PSS, MB", "steps"]
    header += ["s / 1,000 steps", "best", "runs"]
    lines = []
    for name in CONTENDERS:
        title = CONTENDERS[name].title
        if name in scaled:
            lines.append([title, f"{scaled[name]:.0f} (scaled)", *["-"] * 6, "0"])
        elif runs.get(name):
            lines.append([title, *figures(runs[name])])
        elif name in runs:
            lines.append([title, "failed", *["-"] * 6, "0"])
    return f"## {trials} trials\n\n" + report.markdown(header, lines)


def figures(runs: list[Measurement]) -> list[str]:
    """Format the medians of a contender's runs."""
    walls = [run.wall for run in runs]
    results = [run.result or {} for run in runs]
    steps = [result.get("gradient_steps", 0) for result in results]
    pace = [wall / step * 1e3 for wall, step in zip(walls, steps, strict=True) if step]
    scores = [score for score in map(best_accuracy, results) if score is not None]
    return [
        f"{median(walls):.1f}",
        f"{min(walls):.1f}-{max(walls):.1f}",
        f"{median(run.cpu for run in runs):.1f}",
        f"{median(run.peak_pss for run in runs) / 1e6:.0f}",
        f"{median(steps):.0f}" if pace else "-",
        f"{median(pace):.2f}" if pace else "-",
        f"{median(scores):.3f}" if scores else "-",
        str(len(runs)),
    ]


def best_accuracy(result: dict[str, Any]) -> float | None:
    """Find the best validation accuracy in a contender's line of JSON."""
    best = result.get("best") or {}
    return best.get("val_accuracy", best.get("metrics", {}).get("val_accuracy"))


def tracking_rows(runs_by_size: dict[int, Runs]) -> list[Row]:
    """Report the driver's time per epoch-record, which our study measures itself."""
    values = [
        run.result["tracking_seconds_per_record"]
        for runs in runs_by_size.values()
        for run in runs.get("ours", [])
        if run.result and "tracking_seconds_per_record" in run.result
    ]
    if not values:
        return []
    worst = max(values) * 1e3
    name = "driver time per reported epoch-record for tracking"
    return [Row(name, "<= 1 ms", f"{worst:.3f} ms (largest of {len(values)})", worst <= 1.0)]


def run_other(module: str) -> dict[str, Any]:
    """Run one of the other benchmarks, which ends with a line of JSON."""
    progress(f"{module} ...")
    command = [sys.executable, "-m", module, "--no-save"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        failure = Row(module, "-", f"failed, exit status {done.returncode}")
        return {"rows": [asdict(failure)]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


NOTES = """\
Wall time is the whole process, from start to exit, in a fresh folder: imports, Ray's start and the
creation of the MLflow database are in it. CPU time and peak memory (sum of PSS) are those of the
whole process tree. "Steps" are the gradient steps of the trials that a study happened to draw (a
trial with batches of 16 has eight times those of one with 128). "Best" is validation accuracy. Only
ours also scores the test part and logs, registers and describes a model. "Scaled": start-up of the
runs of 20 trials + 10 x the time of their trials; not run."""


if __name__ == "__main__":
    main()
