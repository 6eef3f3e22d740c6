"""Measure the memory of a study on a large table: 1,000,000 x 100 and one epoch of a pack.

    python -m benchmarks.memory
    python -m benchmarks.memory --rows 100000           # to try it out

Samples the sum of PSS over the whole process tree, Ray's daemons and its object store included,
while the table is generated and while the study runs. The target is 3 x the float32 table + 2.5 GB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import process_tree, report
from benchmarks.contenders import environment
from benchmarks.process_tree import Measurement
from benchmarks.report import Row

FIXED = 2.5e9  # bytes that the target grants besides the table: Ray, torch and the workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workdir", type=Path, help="a folder with room for the table")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    limit = 3 * 4 * args.rows * args.columns + FIXED
    with tempfile.TemporaryDirectory(dir=args.workdir, ignore_cleanup_errors=True) as folder:
        jobs = {
            "generate_data": generate_command(args.rows, args.columns),
            f"tune, {args.trials} trials, {args.epochs} epoch": tune_command(
                args.trials, args.epochs
            ),
        }
        measurements = {title: run(command, Path(folder)) for title, command in jobs.items()}
    rows = [
        memory_row(f"{title}, {args.rows:,} x {args.columns}", measurement, limit)
        for title, measurement in measurements.items()
    ]
    details = {title: measurement.to_json() for title, measurement in measurements.items()}
    report.finish(
        "memory", "Memory of the whole process tree", rows, {"runs": details}, not args.no_save
    )


def generate_command(n_samples: int, n_features: int) -> list[str]:
    job = [sys.executable, "-m", "ray_jobs.generate_data", "--output", "big.parquet"]
    return [*job, "--n_samples", str(n_samples), "--n_features", str(n_features)]


def tune_command(trials: int, epochs: int) -> list[str]:
    job = [sys.executable, "-m", "ray_jobs.tune", "--max_evals", str(trials)]
    table = ["--data.path", "big.parquet", "--data.target", "target"]
    return [*job, *table, "--epochs", str(epochs)]


def run(command: list[str], directory: Path) -> Measurement:
    """Run a job, sampling its memory often: here the peak is the figure, not the time."""
    measurement = process_tree.measure(
        command, directory, environment(), pss_interval=0.1, pss_share=0.5
    )
    if measurement.exit_code != 0:
        sys.stderr.write((directory / "stderr.txt").read_text()[-4000:])
        raise SystemExit(f"{' '.join(command)} ended with exit status {measurement.exit_code}")
    return measurement


def memory_row(measure: str, measurement: Measurement, limit: float) -> Row:
    largest = list(measurement.peak_names.items())[:4]
    where = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in largest)
    return Row(
        measure=f"peak memory of {measure}",
        target=f"<= {limit / 1e9:.1f} GB (3 x table + 2.5)",
        measured=f"{measurement.peak_pss / 1e9:.2f} GB ({where}) in {measurement.wall:.0f} s",
        reached=measurement.peak_pss <= limit,
    )


if __name__ == "__main__":
    main()
