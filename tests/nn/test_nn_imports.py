"""Packs run anywhere: `mlops.nn` needs torch, numpy and the standard library."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mlops.nn

FILES = {
    f"mlops.nn.{'.'.join(path.relative_to(mlops.nn.__path__[0]).with_suffix('').parts)}": path
    for path in sorted(Path(mlops.nn.__path__[0]).rglob("*.py"))
    if path.name != "__init__.py"
}
MODULES = list(FILES)


def imported(source: str) -> set[str]:
    """Returns every module that a source names in an import, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("module", MODULES)
def test_sources_import_nothing_else(module: str) -> None:
    source = FILES[module].read_text()
    allowed = ("torch", "numpy", "mlops.nn", "mlops.configuration.hyperparameters")
    for name in imported(source):
        own = any(name == root or name.startswith(root + ".") for root in allowed)
        assert own or name.partition(".")[0] in sys.stdlib_module_names, name


def test_a_process_that_trains_loads_nothing_else() -> None:
    script = f"""
import importlib, json, sys
for name in {MODULES}:
    importlib.import_module(name)
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=Path(mlops.__path__[0]).parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(json.loads(done.stdout))
    assert "torch" in loaded
    assert not loaded & {"ray", "mlflow", "pandas", "sklearn", "pydantic", "scipy", "hyperopt"}
