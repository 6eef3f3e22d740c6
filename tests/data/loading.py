"""Tables loaded as a job's settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlops.data.table import Parts, load_parts
from mlops.settings.sections import DataSettings


def load(**given: Any) -> Parts:
    """Loads a table by settings of `data`; the target of a file is `target` by default."""
    given = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    if "path" in given:
        given.setdefault("target", "target")
    return load_parts(DataSettings(**given))
