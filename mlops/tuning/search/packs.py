"""A searcher that proposes packs: any of Ray Tune's searchers, K configurations at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from ray.tune.search import Searcher

from mlops.tracking.study.logger import is_tried_in_parts, trained
from mlops.tracking.study.record import TrialRecord
from mlops.tuning.search.packing import Packing
from mlops.tuning.search.proposals import Proposals


class PackSearch(Searcher):
    """Asks a searcher for K configurations at a time and tells it each one's score.

    What is proposed for pack n depends only on the scores of packs up to n - L, told in the order
    of trial numbers, so the same study proposes the same trials however its workers' timing falls.
    A configuration proposed before is recorded, but not trained again.

    Tune gets as many packs as workers can train at once; the next one is proposed while they do.
    The trials of a pack whose worker dies for good are tried again, each alone.

    A study that is resumed proposes all its trials again, with the scores on record. What has
    ended is not trained again, unless it shares a pack with a trial that has not: a trial's sums
    round as its pack is. For the same reason a pack that an earlier end of the study had cut stays
    cut.

    Tune sees one trial a pack, with the config
    `{"pack": n, "trials": [{"number", "params", "duplicate_of"}, ...], "settled": [number, ...]}`;
    settled are those of its trials whose record stands.

    Args:
        proposals: The configurations, none of which has been proposed yet.
        max_evals: Trials of the study.
        packing: Pack size and packs in flight.
        workers: Packs trained at the same time.
        recorded: The trials on record.
        ends: What `max_evals` was before.
        when_proposed: Called when nothing is left to be proposed.
    """

    def __init__(
        self,
        proposals: Proposals,
        *,
        max_evals: int,
        packing: Packing,
        workers: int,
        recorded: Mapping[int, TrialRecord] = MappingProxyType({}),
        ends: Iterable[int] = (),
        when_proposed: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._proposals, self._packing, self._workers = proposals, packing, workers
        self._recorded = recorded
        self._known = {number for number, trial in recorded.items() if trial.ended}
        self._scores = {n: t.result["score"] for n, t in recorded.items() if t.result is not None}
        self._ended: set[int] = set()
        self._parts = deque(_parts(max_evals, packing.pack_size, ends))
        self._when_proposed = when_proposed
        self._proposed: dict[str, Any] | None = None
        self._alone: deque[dict[str, Any]] = deque()
        self._packs_told = 0
        self._under_way: dict[str, dict[str, Any]] = {}

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be trained."""
        return all(number in self._known for part in self._parts for number in part)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict, **spec: Any
    ) -> bool:
        """Accepts what Tune passes on; the space is the study's own."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next pack; None while all workers have one or it depends on one under way.

        Raises:
            InputError: It is not what was proposed before.
        """
        if self._proposed is None:
            self._proposed = self._propose_part()
        if not (self._alone or self._proposed or self._parts or self._under_way):
            return Searcher.FINISHED
        if len(self._under_way) >= self._workers:
            return None
        if self._alone:
            pack = self._alone.popleft()
        elif self._proposed is not None:
            pack, self._proposed = self._proposed, None
        else:
            return None
        self._under_way[trial_id] = pack
        return pack

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Notes the scores of trials that have ended; they are told in their pack's turn."""
        for number, score in result["scores"]:
            self._scores.setdefault(number, score)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Notes that a pack has ended; if its worker has died for good, without a last report."""
        pack = self._under_way.pop(trial_id)
        if result is not None:
            self.on_trial_result(trial_id, result)
        left = set(trained(pack)) - self._scores.keys()
        if error and is_tried_in_parts(pack):
            alone = [member for member in pack["trials"] if member["number"] in left]
            self._alone += [{**pack, "trials": [member]} for member in alone]
        else:
            left.clear()
        self._ended |= {member["number"] for member in pack["trials"]} - left

    def _propose_part(self) -> dict[str, Any] | None:
        """Proposes the next trials that are to be trained together."""
        while self._parts:
            numbers = self._parts[0]
            if len(self._proposals.trials) <= numbers[0] and not self._propose_pack():
                return None
            self._parts.popleft()
            if not self._parts:
                self._when_proposed()
            for number in numbers:
                self._proposals.check_same(number, self._recorded.get(number))
            if not self._known.issuperset(numbers):
                return {
                    "pack": numbers[0] // self._packing.pack_size,
                    "trials": self._proposals.trials[numbers.start : numbers.stop],
                    "settled": [number for number in numbers if number in self._known],
                }
            self._ended.update(numbers)
        return None

    def _propose_pack(self) -> bool:
        """Proposes the next pack; False if it depends on one that has not ended.

        Whole, even if the study ends within it: the rest of it may be wanted later.
        """
        first, size = len(self._proposals.trials), self._packing.pack_size
        if not self._tell_up_to(first // size - self._packing.packs_in_flight):
            return False
        self._proposals.propose(size)
        return True

    def _tell_up_to(self, last: int) -> bool:
        """Tells the scores of packs up to `last`; False if one of them has not ended."""
        size = self._packing.pack_size
        while self._packs_told <= last:
            numbers = range(self._packs_told * size, (self._packs_told + 1) * size)
            if not self._ended.issuperset(numbers):
                return False
            for number in numbers:
                self._proposals.tell(number, self._scores)
            self._packs_told += 1
        return True

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: a study resumes from its MLflow record."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing: a study resumes from its MLflow record."""


def _parts(max_evals: int, pack_size: int, ends: Iterable[int]) -> Iterator[range]:
    """Yields the numbers of the trials that are trained together."""
    cuts = {*range(0, max_evals, pack_size), *(end for end in ends if end < max_evals), max_evals}
    for first, stop in pairwise(sorted(cuts)):
        yield range(first, stop)
