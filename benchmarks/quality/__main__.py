"""How good are the models? Real tables, several splits, and peers on the same rows and cores.

    python -m benchmarks.quality --data FOLDER           # all that is not known yet
    python -m benchmarks.quality --data FOLDER --tables phoneme car --contenders ours hgb
    python -m benchmarks.quality --data FOLDER --contenders ours --flags "--max_evals 64"
    python -m benchmarks.quality --data FOLDER --look    # the last thing to do

Choices are made by scores on validation parts; `--look` shows those on the test parts. Each result
is kept when it is known (`--results`, JSON lines): a run goes on where it stopped, and peers run
once. Tables that the folder lacks are left out. Peers: `pip install -e .[bench]`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from benchmarks import machine
from benchmarks.quality.contenders import Contender, contenders
from benchmarks.quality.results import PartName, Result, Results, geometric_mean, ratios
from benchmarks.quality.tables import CLASSES, Score, Table, n_splits
from benchmarks.report import markdown

WHO = ["ours", "hgb", "catboost", "realmlp"]


def main() -> None:
    args = parse_arguments()
    known = contenders(shlex.split(args.flags))
    chosen = [known[name] for name in args.contenders]
    tables = [table for table in CLASSES if (args.data / table.file).exists()]
    tables = [table for table in tables if not args.tables or table.name in args.tables]
    results = Results(args.results)
    if not args.look:
        for table in tables:
            compete(table, args.data, chosen, results, args.splits)
    part: PartName = "test" if args.look else "validation"
    print(f"# Quality on the {part} parts\n\n{machine.one_line(machine.describe())}")
    for other in chosen[1:]:
        print(f"\n## {chosen[0].name} against {other.name}\n")
        print(compared(results, chosen[0], other, part))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of tables")
    parser.add_argument(
        "--tables", nargs="*", default=[], choices=[table.name for table in CLASSES]
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        default=WHO,
        choices=WHO,
        help="the first is compared with the others",
    )
    parser.add_argument("--flags", default="", help="of our job tune")
    parser.add_argument("--splits", type=int, help="fewer splits, to try something")
    parser.add_argument("--results", type=Path, default=Path("quality.jsonl"))
    parser.add_argument("--look", action="store_true", help="show scores on the test parts")
    return parser.parse_args()


def compete(
    table: Table, folder: Path, chosen: list[Contender], results: Results, most: int | None
) -> None:
    """Let each contender try each split of a table that it has not tried yet."""
    splits = n_splits(table.parts(folder, 0))
    for split in range(splits if most is None else min(most, splits)):
        waiting = [one for one in chosen if (table.name, split, one.name) not in results]
        parts = table.parts(folder, split) if waiting else None
        for contender in waiting:
            assert parts is not None
            outcome = contender.compete(table, folder, split, parts)
            validation = Score.of(outcome.validation, parts.validation.target)
            test = Score.of(outcome.test, parts.test.target)
            results.add(
                Result(table.name, split, contender.name, validation, test, outcome.seconds)
            )
            told = (
                f"{validation.errors / validation.rows:.2%} wrong, {validation.log_loss:.3f} nats"
            )
            print(
                f"{table.name} {split} {contender.name}: {told}, {outcome.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )


def compared(results: Results, one: Contender, other: Contender, part: PartName) -> str:
    """Format the ratios on each table, and their geometric means."""
    found = ratios(list(results), one.name, other.name, part)
    if not found:
        return "No split was tried by both."
    lines = [
        [it.table, f"{it.error:.3f} ± {it.sigma:.3f}", f"{it.log_loss:.3f}", f"{it.seconds:.0f}"]
        for it in found
    ]
    means = [geometric_mean([getattr(it, name) for it in found]) for name in ("error", "log_loss")]
    lines.append(["**geometric mean**", *(f"**{value:.3f}**" for value in means), ""])
    return markdown(["table", "error", "log loss", "seconds"], lines)


if __name__ == "__main__":
    main()
