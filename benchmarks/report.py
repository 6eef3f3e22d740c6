"""Tables of the benchmarks: rows of measure, target and result, as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One figure that has a target; `reached` is None where the target cannot be judged."""

    measure: str
    target: str
    measured: str
    reached: bool | None = None

    def cells(self) -> list[str]:
        verdict = {True: "yes", False: "no", None: "-"}[self.reached]
        return [self.measure, self.target, self.measured, verdict]


def rows_table(rows: Iterable[Row]) -> str:
    """Format rows as a Markdown table."""
    return markdown(["measure", "target", "measured", "reached"], [row.cells() for row in rows])


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table."""
    text = ["| " + " | ".join(cells) + " |" for cells in [header, *lines]]
    return "\n".join([text[0], "|" + "---|" * len(header), *text[1:]])


def finish(name: str, title: str, rows: Sequence[Row], details: dict[str, Any], save: bool) -> None:
    """Print a benchmark's table, save it when asked, and end stdout with a line of JSON."""
    about = machine.describe()
    text = f"# {title}\n\n{machine.one_line(about)}\n\n{rows_table(rows)}\n"
    data = {"name": name, "machine": about, "rows": [asdict(row) for row in rows], **details}
    print(text)
    if save:
        write(name, text, data)
    print(json.dumps(data))


def write(name: str, text: str, data: dict[str, Any], folder: Path = RESULTS) -> None:
    """Write `name.md` and `name.json` in the folder of results."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text)
    (folder / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
