"""Does searching by packs find worse models than searching one trial at a time?

    python -m benchmarks.search_quality                  # 64 trials, 10 seeds, both ways
    python -m benchmarks.search_quality --seeds 2 --trials 8 --epochs 5

For each seed the same study runs twice on a fixed table: `pack_size auto`, and `pack_size 1`, where
every result is known before the next configuration is suggested. A pack's members are suggested
together, so its searcher learns later. The figure is the difference of the best validation accuracy
(packs less one at a time), paired by seed.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from sklearn.datasets import make_classification

from benchmarks import process_tree, report
from benchmarks.contenders import SEED_TASK, environment
from benchmarks.report import Row

RunStudy = Callable[[int, str, int], float]
"""(seed, pack_size, max_evals) -> best validation accuracy."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quality-", ignore_cleanup_errors=True) as folder:
        table = Path(folder) / "table.csv"
        write_table(table)
        run_study = study_by_command(table, args.epochs)
        scores = compare(run_study, args.trials, args.seeds)
    measure = f"best validation accuracy after {args.trials} trials, packs less one at a time"
    row = quality_row(measure, scores["auto"], scores["1"])
    report.finish(
        "search_quality", "Search by packs", [row], {"scores": scores}, save=not args.no_save
    )


def compare(run_study: RunStudy, trials: int, seeds: int) -> dict[str, list[float]]:
    """Run every seed both ways, in alternating order."""
    scores: dict[str, list[float]] = {"auto": [], "1": []}
    for seed in range(seeds):
        order = ["auto", "1"] if seed % 2 == 0 else ["1", "auto"]
        for pack_size in order:
            scores[pack_size].append(run_study(seed, pack_size, trials))
        difference = scores["auto"][-1] - scores["1"][-1]
        print(f"seed {seed}: {difference:+.4f}", file=sys.stderr, flush=True)
    return scores


def quality_row(measure: str, packs: Sequence[float], singles: Sequence[float]) -> Row:
    """Summarise paired scores; "no worse" means not below zero by more than two standard errors."""
    differences = [a - b for a, b in zip(packs, singles, strict=True)]
    spread = stdev(differences) if len(differences) > 1 else math.nan
    error = spread / math.sqrt(len(differences))
    measured = (
        f"{mean(differences):+.4f} +- {error:.4f} (standard error; spread {spread:.4f}, "
        f"{len(differences)} seeds; {mean(packs):.4f} against {mean(singles):.4f})"
    )
    no_worse = None if math.isnan(error) else mean(differences) >= -2 * error
    return Row(measure, "no worse, within the spread", measured, no_worse)


def study_by_command(table: Path, epochs: int) -> RunStudy:
    """Make a runner that starts `ray_jobs.tune` for every study, in a fresh folder."""

    def run_study(seed: int, pack_size: str, max_evals: int) -> float:
        job = [sys.executable, "-m", "ray_jobs.tune", "--config", str(SEED_TASK)]
        job += ["--data.path", str(table), "--data.target", "target", "--epochs", str(epochs)]
        job += ["--seed", str(seed), "--data.split_seed", str(seed)]
        job += ["--pack_size", pack_size, "--max_evals", str(max_evals)]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            done = process_tree.measure(job, Path(folder), environment(), pss_interval=60.0)
            if done.exit_code != 0 or done.result is None:
                sys.stderr.write((Path(folder) / "stderr.txt").read_text()[-4000:])
                raise SystemExit(f"{' '.join(job)} ended with exit status {done.exit_code}")
            return best_accuracy(done.result)

    return run_study


def best_accuracy(result: dict[str, Any]) -> float:
    """Take the best validation accuracy from the job's line of JSON."""
    best = result["best"]
    return float(
        best["val_accuracy"] if "val_accuracy" in best else best["metrics"]["val_accuracy"]
    )


def write_table(path: Path) -> None:
    """Write the task as a table."""
    x, y = make_task()
    header = ",".join([*(f"feature_{i}" for i in range(x.shape[1])), "target"])
    formats = ["%.6g"] * x.shape[1] + ["%d"]
    np.savetxt(
        path, np.column_stack([x, y]), delimiter=",", header=header, comments="", fmt=formats
    )


def make_task() -> tuple[np.ndarray, np.ndarray]:
    """Make a task on which configurations differ: four classes that overlap.

    3,000 rows give 480 for validation, a step of 0.2 points. The table is fixed; the seeds
    of the study and of the split change.
    """
    x, y = make_classification(
        n_samples=3000,
        n_features=20,
        n_informative=10,
        n_classes=4,
        class_sep=0.8,
        flip_y=0.05,
        random_state=0,
    )
    return x, y


if __name__ == "__main__":
    main()
