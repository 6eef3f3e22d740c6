"""Names of a table's columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

from mlops.data.columns.kinds import some_of
from mlops.data.notes import Note
from mlops.errors import TableError


def check_names(names: Sequence[str]) -> None:
    """Checks that every column has a name of its own.

    Raises:
        TableError: Columns have no name or the same one.
    """
    problems = []
    unnamed = [str(i + 1) for i, name in enumerate(names) if not name.strip()]
    if unnamed:
        problems.append(
            f"every column must have a name, got none for column {', '.join(unnamed[:5])}; name "
            "it, or if it is a row number write the file without (pandas: `index=False`)"
        )
    twice = [name for name, times in Counter(names).items() if times > 1 and name.strip()]
    if twice:
        problems.append(
            f"column names must differ, got twice: {some_of(twice)}; rename or drop one"
        )
    if problems:
        raise TableError(problems)


def stripped(names: Sequence[str]) -> tuple[list[str], list[Note]]:
    """Takes the blanks around column names away, unless two would then be the same.

    Returns:
        The names, and a note if any has changed.
    """
    bare = [name.strip() for name in names]
    changed = [name for name, short in zip(names, bare, strict=True) if name != short]
    if not changed or len(set(bare)) < len(set(names)):
        return list(names), []
    text = (
        f"blanks around {len(changed)} column name(s) are left out; rename columns in the file if "
        "they matter"
    )
    return bare, [Note("names_stripped", text)]


def nearest(name: str, names: list[str]) -> str:
    """Suggests what was meant by a name that is not among `names`."""
    close = get_close_matches(name, names, n=1)
    return f"did you mean `{close[0]}`?" if close else f"choose one of {some_of(names, most=20)}"
