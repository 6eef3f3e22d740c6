"""Names of columns: which may be, and which one was meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

from mlops.data.columns import some_of
from mlops.errors import TableError


def check_names(names: Sequence[str]) -> None:
    """Checks that columns have names, each its own.

    Raises:
        TableError: They have not; one line for each rule.
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


def nearest(name: str, names: list[str]) -> str:
    """Suggests what was meant by a name that is not among `names`."""
    close = get_close_matches(name, names, n=1)
    return f"did you mean `{close[0]}`?" if close else f"choose one of {some_of(names, most=20)}"
