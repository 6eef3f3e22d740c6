"""Measure batch scoring: rows a second on 1,000,000 x 20, and memory as the table grows.

    python -m benchmarks.batch_scoring                     # some minutes on 2 cores
    python -m benchmarks.batch_scoring --rows 20000 --repeats 1 --no-save    # to try it out

Each run is a cold process. Of its result, `scoring_seconds` is from opening the table to the
finished file; the wall time has imports, reading the model, and Ray's start and end too. The
memory is the peak of the sum of PSS over the process tree, Ray's daemons and object store included.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from benchmarks import process_tree, report
from benchmarks.contenders import environment
from benchmarks.process_tree import Measurement
from benchmarks.report import Row

TARGET = 300_000  # rows a second
GROWTH = 200e6  # bytes that a table of four times the rows may take more: none, but for noise
Runs = dict[str, list[Measurement]]


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory(dir=args.workdir, ignore_cleanup_errors=True) as folder:
        prepare(Path(folder), args.rows, args.columns)
        cases = {
            "Parquet": ["--input", "table.parquet", "--output", "scored.parquet"],
            "Parquet, two workers of Ray's": [
                *["--input", "table.parquet", "--output", "scored.parquet"],
                *["--workers", "2"],
            ],
            "CSV": ["--input", "table.csv", "--output", "scored.csv"],
            "Parquet, four times the rows": ["--input", "large.parquet", "--output", "s.parquet"],
            "Parquet, two workers of Ray's, four times the rows": [
                *["--input", "large.parquet", "--output", "s.parquet"],
                *["--workers", "2"],
            ],
        }
        runs: Runs = {title: [] for title in cases}
        for _ in range(args.repeats):
            for title, flags in cases.items():
                runs[title].append(score(title, flags, Path(folder)))
    rows = rate_rows(runs, f"{args.rows:,} x {args.columns}")
    rows += [memory_row(runs, "Parquet"), memory_row(runs, "Parquet, two workers of Ray's")]
    details = {title: [m.to_json() for m in done] for title, done in runs.items()}
    report.finish("batch_scoring", "Batch scoring", rows, {"runs": details}, not args.no_save)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workdir", type=Path, help="a folder with room for the tables")
    parser.add_argument("--no-save", action="store_true")
    return parser.parse_args()


def prepare(folder: Path, rows: int, columns: int) -> None:
    """Make the tables, and train and register a model of the default widths."""
    shape = ["--n_features", str(columns), "--n_samples"]
    run("generate_data", [*shape, str(rows), "--output", "table.parquet"], folder)
    run("generate_data", [*shape, "2000", "--output", "small.parquet"], folder)
    data = ["--data.path", "small.parquet", "--data.target", "target"]
    run("train", [*data, "--epochs", "2"], folder)
    table = pq.read_table(folder / "table.parquet")
    table.to_pandas().to_csv(folder / "table.csv", index=False)
    with pq.ParquetWriter(folder / "large.parquet", table.schema) as writer:
        for _ in range(4):
            writer.write_table(table)


def score(title: str, flags: list[str], folder: Path) -> Measurement:
    """Score a table in a cold process and say how it went."""
    measurement = run("predict", [*flags, "--alias", "candidate", "--overwrite"], folder)
    print(
        f"{title}: {scoring_rate(measurement):,.0f} rows/s, whole process "
        f"{measurement.wall:.1f} s, peak {measurement.peak_pss / 1e6:.0f} MB",
        file=sys.stderr,
    )
    return measurement


def run(job: str, flags: list[str], folder: Path) -> Measurement:
    """Run a job, sampling its memory often enough to see the peak of some seconds' work."""
    command = [sys.executable, "-m", f"ray_jobs.{job}", *flags]
    measurement = process_tree.measure(
        command, folder, environment(), pss_interval=0.2, pss_share=0.1
    )
    if measurement.exit_code != 0:
        sys.stderr.write((folder / "stderr.txt").read_text()[-4000:])
        raise SystemExit(f"{job} ended with exit status {measurement.exit_code}")
    return measurement


def scoring_rate(measurement: Measurement) -> float:
    assert measurement.result is not None
    return float(measurement.result["rows"] / measurement.result["scoring_seconds"])


def rate_rows(runs: Runs, size: str) -> list[Row]:
    rows = []
    for title, done in runs.items():
        rate = median(map(scoring_rate, done))
        wall = median(m.wall for m in done)
        peak = max(m.peak_pss for m in done)
        held = title.startswith("Parquet")
        rows.append(
            Row(
                measure=f"batch scoring of {size}, {title}",
                target=f">= {TARGET:,} rows/s" if held else "-",
                measured=f"{rate:,.0f} rows/s ({wall:.1f} s whole process, {peak / 1e6:.0f} MB)",
                reached=rate >= TARGET if held else None,
            )
        )
    return rows


def memory_row(runs: Runs, title: str) -> Row:
    """Compare the peaks of a table and of one with four times the rows."""
    small, large = (
        median(m.peak_pss for m in runs[name]) for name in (title, f"{title}, four times the rows")
    )
    return Row(
        measure=f"memory of four times the rows, {title}",
        target=f"<= {GROWTH / 1e6:.0f} MB more",
        measured=f"{(large - small) / 1e6:+.0f} MB ({large / 1e6:.0f} after {small / 1e6:.0f})",
        reached=large - small <= GROWTH,
    )


if __name__ == "__main__":
    main()
