"""The groups of a pack take turns on a device, and share its memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

import torch

from mlops.nn.device import precision as precisions
from mlops.nn.device.memory import shortage
from mlops.nn.group import Group
from mlops.nn.records import EpochRecord, Outcome, TrialResult

Events = list[EpochRecord | TrialResult]

# Groups that train side by side. Each step of a small one leaves most of a GPU idle, and their
# number is bounded by what the host can prepare meanwhile. A CPU's thread is busy with one.
GROUPS_AT_ONCE = {"cuda": 16}

logger = logging.getLogger(__name__)


class Turns:
    """Trains groups, epoch by epoch.

    A group for which the device has not enough memory, when it begins, goes on as two halves; a
    member for which there is not enough alone fails. Members do not depend on their group, so that
    changes no more than how sums round.

    Args:
        groups: The list of groups; where one goes on as two, it has these.
        device: Where they train.
        precision: Of the products, a name in `precision.DTYPES`.
    """

    def __init__(self, groups: list[Group], device: torch.device, precision: str) -> None:
        self._groups, self._device, self._precision = groups, device, precision

    def until(self, epoch: int) -> Iterator[Events]:
        """Trains up to an epoch; yields what one of a group brings, on a GPU of several groups."""
        while waiting := [group for group in self._groups if group.is_before(epoch)]:
            started = time.perf_counter()
            with precisions.applied(self._precision, self._device):
                together, failed = self._begin(waiting)
            if failed:
                yield failed
            while together:
                # Told together, so that no group is in the midst of an epoch meanwhile.
                yield self._end_epoch(together, started)
                started = time.perf_counter()
                together = [group for group in together if group.is_before(epoch)]
                with precisions.applied(self._precision, self._device):
                    _begin_epochs(together)

    def _begin(self, waiting: Sequence[Group]) -> tuple[list[Group], Events]:
        """Lets the first of the groups that wait begin an epoch.

        One on a CPU. On a GPU, which small groups do not fill, as many as its memory holds, those
        first that are open.

        Returns:
            Those that have begun, and the results of members that fit nowhere.
        """
        at_once = GROUPS_AT_ONCE.get(self._device.type, 1)
        if at_once == 1:
            waiting = waiting[:1]
        # What these need they have, as long as no other takes it: there is no way back from the
        # midst of their epoch.
        begun = [group for group in waiting if group.is_open][:at_once]
        _begin_epochs(begun)
        closed = [group for group in waiting if not group.is_open]
        for group in closed[: at_once - len(begun)]:
            lack = shortage(group.begin_epoch)
            if lack is not None:
                group.close()
                # There may be enough for it when those that have begun are done.
                return begun, [] if begun else self._make_room(group, lack)
            begun.append(group)
        return begun, []

    def _make_room(self, group: Group, lack: str) -> Events:
        """Closes the groups that are idle; if there is none, puts two halves in this one's place.

        Returns:
            The result of a group's only member, which fits nowhere.
        """
        idle = [other for other in self._groups if other.is_open]
        for other in idle:
            other.close()
        if idle:
            return []
        if len(group.runs) == 1:
            reason = f"does not fit the device's memory: {lack}"
            return [*group.release(Outcome.FAILED, {group.runs[0].number: reason})]
        halves = group.split()
        sizes = [len(half.runs) for half in halves]
        text = "%d trials do not fit the device's memory at once and go on as %d and %d: %s"
        logger.warning(text, len(group.runs), *sizes, lack)
        i = self._groups.index(group)
        self._groups[i : i + 1] = halves
        return []

    @staticmethod
    def _end_epoch(together: Sequence[Group], started: float) -> Events:
        for group in together:
            group.wait()
        members = sum(len(group.runs) for group in together)
        seconds = (time.perf_counter() - started) / max(1, members)
        return [event for group in together for event in group.end_epoch(seconds)]


def _begin_epochs(groups: Sequence[Group]) -> None:
    """Lets groups begin an epoch, a piece of each in turn.

    The host waits for a group when it is some pieces ahead of it. So the others have theirs too.
    """
    under_way = [group.pieces() for group in groups]
    while under_way:
        under_way = [pieces for pieces in under_way if next(pieces, pieces) is not pieces]
