"""Checkpoints of packs: a pack whose worker has died goes on from where it was not long before.

So does one of a study that was stopped, exactly from where it was.

A checkpoint is one safetensors file, `pack-<n>.safetensors`. It holds the state of the training and
all that the pack has told so far, so that nothing depends on which reports have arrived. The driver
imports this module too: torch is imported by those who write and read.
"""

from __future__ import annotations

import json
import logging
import os
import time
import zlib
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops.errors import TableError, first_line
from mlops.files import local_copy, remove, replacing
from mlops.nn.records import EpochRecord, Outcome, TrialResult
from mlops.tracking.study.storage import FACTS, checkpoint_name, is_no_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from mlops.nn.training import Snapshot

# To be raised when a checkpoint is written in another way or training goes on from it otherwise.
FORMAT = 2

_RECORD_WIDTH = len(fields(EpochRecord))

logger = logging.getLogger(__name__)


@dataclass
class Told:
    """All that a pack has told so far.

    Attributes:
        records: The fields of one `EpochRecord` after the other; a long pack tells of many.
        results: `TrialResult` fields, without the weights, of each trial that has ended.
        best: The best of those trials, with its weights.
    """

    records: array[float] = field(default_factory=lambda: array("d"))
    results: list[dict[str, Any]] = field(default_factory=list)
    best: TrialResult | None = None

    def events(self) -> list[EpochRecord | TrialResult]:
        """Returns all records, then all results; only the best trial has its weights."""
        rows = np.array(self.records).reshape(-1, _RECORD_WIDTH).tolist()
        records = [EpochRecord(int(row[0]), int(row[1]), *row[2:]) for row in rows]
        results = [_result(ended) for ended in self.results]
        best = self.best
        return [*records, *(best if best and best.trial == r.trial else r for r in results)]


class Checkpoints:
    """The checkpoints of a worker, which trains one pack after another.

    A pack can always be trained from the beginning. So nothing here raises for what is wrong with a
    file or its folder: training goes on. A file that is of no use is logged, and the first time
    that the folder cannot be read or written; what failed is tried again when it is next due. A
    file of a checkpoint's name that is something else is left as it is.

    Args:
        folder: Where the files are, a path or a URI in an object store; made when needed.
        every: Seconds from one checkpoint to the next; None for never, unless asked for.
        rows: The arrays that the packs train on.
    """

    def __init__(self, folder: str, every: float | None, rows: Sequence[np.ndarray]) -> None:
        self._folder, self._every, self._rows = folder, every, rows
        self._has_complained = False
        self._is_free, self._may_exist = True, False

    def open(self, pack: int, settings: Mapping[str, Any]) -> tuple[Snapshot | None, Told]:
        """Turns to a pack.

        Args:
            pack: The pack's number.
            settings: What its training depends on besides the rows, as JSON values. A checkpoint
                that was written with others is not used.

        Returns:
            Where to go on with its training, None for the beginning, and what it has told by then.
        """
        from safetensors import SafetensorError

        self._path = f"{self._folder}/{checkpoint_name(pack)}"
        self._is_free = self._may_exist = True
        self._settings = settings
        self._last = time.monotonic()
        try:
            found = self._read()
        except (FileNotFoundError, NotADirectoryError):
            self._may_exist = False
            return None, Told()
        except OSError as error:
            self._complain(error)
            return None, Told()
        except (SafetensorError, ValueError) as error:
            text = "pack %d starts from the beginning, for %s is of no use: %s"
            logger.warning(text, pack, self._path, first_line(error))
            return None, Told()
        logger.info("pack %d goes on from %s", pack, self._path)
        return found

    def is_due(self) -> bool:
        """Whether the last checkpoint, or the pack's start, is long enough ago."""
        if self._every is None or not self._is_free:
            return False
        return time.monotonic() - self._last >= self._every

    def write(self, snapshot: Snapshot, told: Told) -> None:
        """Puts a checkpoint in the last one's place, once it is wholly on the disk."""
        if not self._is_free:
            return
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors, facts = _packed(self._fingerprint, snapshot, told)
        metadata = {FACTS: facts, "checksum": _checksum(facts, tensors)}
        self._may_exist = True
        try:
            with replacing(self._path) as unfinished:
                # Not by way of bytes, which takes 5x the time.
                save_file(tensors, unfinished, metadata)
                with unfinished.open("r+b") as file:
                    os.fsync(file.fileno())
        except (TableError, SafetensorError) as error:
            self._complain(error)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Removes the pack's checkpoint, if there is one."""
        if self._is_free and self._may_exist:
            with suppress(OSError):
                remove(self._path)

    def _complain(self, error: Exception) -> None:
        if not self._has_complained:
            logger.warning("training goes on without checkpoints: %s", first_line(error))
        self._has_complained = True

    @property
    def _fingerprint(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the pack that goes on from it."""
        import torch

        return {
            "format": FORMAT,
            "torch": str(torch.__version__),
            "rows": self._rows_digest,
            **self._settings,
        }

    @cached_property
    def _rows_digest(self) -> list[str]:
        # Takes 0.3 s a GB: once a worker, and not before there is a checkpoint to read or write.
        return [
            f"{rows.dtype} {rows.shape} {zlib.crc32(rows.ravel(order='K').data):08x}"
            for rows in self._rows
        ]

    def _read(self) -> tuple[Snapshot, Told]:
        """Reads the pack's checkpoint.

        Raises:
            OSError: It cannot be read.
            SafetensorError: It is no safetensors file, or not all of one.
            ValueError: It is damaged, or another pack's.
        """
        from safetensors.torch import load

        # Read at once: a worker that was given up too early may be replacing the file.
        with local_copy(self._path) as file:
            data = file.read_bytes()
        tensors = load(data)
        if is_no_checkpoint(data):
            self._is_free = False
            raise FileExistsError(f"{self._path} must be a checkpoint, got another's file; move it")
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
        text = metadata.get(FACTS, "")
        if metadata.get("checksum") != _checksum(text, tensors):
            raise ValueError("it is damaged")
        facts = json.loads(text)
        found, expected = facts["fingerprint"], self._fingerprint
        if found != expected:
            names = [k for k in {**expected, **found} if found.get(k) != expected.get(k)]
            raise ValueError(f"it was written with different {', '.join(names)}")
        return _unpacked(tensors, facts)


def _packed(
    fingerprint: Mapping[str, Any], snapshot: Snapshot, told: Told
) -> tuple[dict[str, Tensor], str]:
    """Returns what a checkpoint holds as tensors, and the rest as JSON."""
    import torch

    weights = told.best.weights if told.best else {}
    tensors = {
        "records": torch.from_numpy(np.array(told.records).reshape(-1, _RECORD_WIDTH)),
        **{f"best.{name}": tensor for name, tensor in weights.items()},
        **{f"training.{name}": tensor for name, tensor in snapshot.tensors.items()},
    }
    facts = {
        "fingerprint": fingerprint,
        "training": snapshot.facts,
        "results": told.results,
        "best": told.best.trial if told.best else None,
    }
    return tensors, json.dumps(facts)


def _unpacked(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> tuple[Snapshot, Told]:
    from mlops.nn.training import Snapshot

    def under(prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }

    told = Told(array("d", tensors["records"].flatten().tolist()), facts["results"])
    for ended in told.results:
        if ended["trial"] == facts["best"]:
            told.best = _result(ended, under("best."))
    return Snapshot(under("training."), facts["training"]), told


def _result(ended: Mapping[str, Any], weights: dict[str, Tensor] | None = None) -> TrialResult:
    outcome = Outcome(ended["outcome"])
    return TrialResult(**{**ended, "outcome": outcome, "weights": weights or {}})


def _checksum(facts: str, tensors: Mapping[str, Tensor]) -> str:
    checksum = zlib.crc32(facts.encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.numpy().data, checksum)
    return f"{checksum:08x}"
