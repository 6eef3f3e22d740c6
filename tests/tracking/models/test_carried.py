"""What a model carries is what its loader imports, however it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops.tracking import pyfunc
from mlops.tracking.models.carried import modules_needed

ROOT = Path(pyfunc.__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("import pack.other", True),
        ("import json, pack.other as other", True),
        ("from pack.other import function", True),
        ("from pack import other", True),
        ("def f():\n    from pack.other import function", True),
        ("class C:\n    def f(self):\n        if True:\n            import pack.other", True),
        ("try:\n    import json\nexcept ImportError:\n    import pack.other", True),
        ("from pack.between import through", True),
        ("if TYPE_CHECKING:\n    from pack.other import function", False),
        ("import typing\nif typing.TYPE_CHECKING:\n    import pack.other", False),
        ("if TYPE_CHECKING:\n    import json\nelse:\n    import pack.other", True),
        ("import other", False),
        ("from another.pack import other", False),
    ],
)
def test_each_way_to_import(text: str, needed: bool, tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text('"""A package."""')
    (package / "loader.py").write_text(text)
    (package / "other.py").write_text("import pack.loader\ndef function(): ...")
    (package / "between.py").write_text("from pack.other import function as through")
    (package / "never.py").write_text("import pack.loader")
    found = {path.name for path in modules_needed("pack.loader", tmp_path)}
    assert ("other.py" in found) is needed
    assert {"__init__.py", "loader.py"} <= found
    assert "never.py" not in found


def test_folders_can_be_imported() -> None:
    found = modules_needed("mlops.tracking.pyfunc", ROOT)
    for path in found:
        inits = {folder / "__init__.py" for folder in path.parents if folder != Path()}
        assert inits <= set(found)
    # What Ray, MLflow and training need is none of a model's.
    rooms = {path.parts[1] for path in found if len(path.parts) > 2}
    assert not rooms & {"serving", "tuning", "cluster"}
