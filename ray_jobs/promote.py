"""Chooses by hand which version of the model is champion, the one that is served.

python -m ray_jobs.promote --candidate         # the best model of the last study
python -m ray_jobs.promote --version 3
python -m ray_jobs.promote --rollback          # the champion before this one
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from mlops.console import leave, run_job
from mlops.settings import flags
from mlops.settings.serving import PromoteSettings


def main(argv: list[str]) -> dict[str, Any]:
    """Moves the alias `champion` and says what was served before."""
    given = flags.load(PromoteSettings, argv, name="promote", description=__doc__ or "")
    from mlops.tracking.models import promotion, registry
    from mlops.tracking.store.store import open_registry

    store = open_registry(given.tracking.uri)
    name = given.tracking.model_name
    if given.rollback:
        done = promotion.rollback(store, name)
    else:
        done = promotion.promote(
            store,
            name,
            given.version or registry.CANDIDATE,
            allow_schema_change=given.allow_schema_change,
        )
    before = "none" if done.before is None else f"version {done.before}"
    print(f"champion of {name} before: {before}", file=sys.stderr)
    print(f"champion of {name} now: version {done.champion} ({done.reason})", file=sys.stderr)
    return {"model": name, **asdict(done)}


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
