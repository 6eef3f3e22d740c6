"""Checksums by which a model's files are known again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mlops.errors import TrackingError

CHECKSUMS = "checksums.json"
SHA256_TAG = "sha256"


def write_checksums(folder: Path) -> str:
    """Writes the SHA-256 of every file of a model into its `checksums.json`.

    Returns:
        The SHA-256 of that file.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    return _sha256(folder / CHECKSUMS)


def verify(folder: Path, sha256: str | None) -> None:
    """Checks that a model's files are those that were recorded, no more and no fewer.

    Args:
        folder: A copy of the model's files.
        sha256: The model's tag `sha256`.

    Raises:
        TrackingError: They are not, or none were recorded.
    """
    listing = folder / CHECKSUMS
    if sha256 is None or not listing.is_file() or _sha256(listing) != sha256:
        raise TrackingError(
            "a model must carry the checksums recorded with it, got "
            f"{'other ones' if sha256 and listing.is_file() else 'none'}; it was not made by this "
            "package or has been changed since, register a new one"
        )
    expected = json.loads(listing.read_text(encoding="utf-8"))
    paths = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    # MLflow's loaders leave these two behind when they use the files in place.
    strange = [
        name
        for name in found.keys() - expected.keys() - {CHECKSUMS, "registered_model_meta"}
        if "__pycache__" not in name.split("/")
    ]
    wrong = sorted(
        {name for name in expected if name not in found or _sha256(found[name]) != expected[name]}
        | set(strange)
    )
    if wrong:
        raise TrackingError(
            f"a model's files must be those that were recorded, got {len(wrong)} changed, missing "
            f"or added ({', '.join(wrong[:3])}); register a new one"
        )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
