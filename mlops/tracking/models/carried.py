"""What of this package a model needs to predict: what its loader imports, and what those import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def modules_needed(loader: str, root: Path) -> list[Path]:
    """Finds the files of a module, of all that it imports of its own package, and so on.

    Imports within functions count, those for type checkers do not.

    Args:
        loader: The module's name.
        root: The folder that the package lies in.

    Returns:
        Paths from there, in order, with each folder's `__init__.py`.
    """
    package = loader.partition(".")[0]
    found: set[Path] = set()
    waiting = [loader]
    while waiting:
        name = waiting.pop()
        path = _file(root, name)
        if path is None or path in found:
            continue
        found.add(path)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        tree = ast.parse((root / path).read_text(encoding="utf-8"))
        waiting += [one for one in _imported(tree) if one.partition(".")[0] == package]
    return sorted(found)


def _file(root: Path, name: str) -> Path | None:
    """Returns where a module is; None for what is no module, such as a function of one."""
    path = Path(*name.split("."))
    for one in (path / "__init__.py", path.with_suffix(".py")):
        if (root / one).is_file():
            return one
    return None


def _imported(node: ast.AST) -> Iterator[str]:
    """Yields the names that a module imports, of modules or of what is in them."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children: list[ast.AST] = list(node.orelse)
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports of this package are absolute"
            yield str(child.module)
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from _imported(child)
