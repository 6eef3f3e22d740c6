"""A searcher that proposes packs: any of Ray Tune's searchers, K configurations at a time."""

from __future__ import annotations

import json
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from ray.tune.search import Searcher

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.configuration.space import SearchSpace
from mlops.errors import InputError
from mlops.tracking.study.logger import is_tried_in_parts, trained
from mlops.tracking.study.record import TrialRecord
from mlops.tuning.search.packing import Packing
from mlops.tuning.search.searchers import SCORE, SEARCHERS, ask, domains_of

# What a searcher is told of a trial that has no score, by direction.
WORST = {"max": 0.0, "min": 1e6}


@dataclass
class _Proposals:
    """Every configuration proposed, so that none is trained twice."""

    by_key: dict[str, int] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)

    def add(self, params: dict[str, Any]) -> None:
        """Numbers a configuration, and notes of which earlier trial it is a duplicate."""
        number = len(self.trials)
        first = self.by_key.setdefault(json.dumps(params, sort_keys=True), number)
        duplicate_of = None if first == number else first
        self.trials.append({"number": number, "params": params, "duplicate_of": duplicate_of})

    def original(self, number: int) -> int:
        """Returns the trial itself, or the one that it is a duplicate of."""
        first: int | None = self.trials[number]["duplicate_of"]
        return number if first is None else first


class PackSearch(Searcher):
    """Asks a searcher for K configurations at a time and tells it each one's score.

    Trial 0 is the default configuration. What is proposed for pack n depends only on the scores of
    packs up to n - L, told in the order of trial numbers, so the same study proposes the same
    trials however its workers' timing falls. A configuration proposed before is numbered and
    recorded, but not trained again. A trial without a score counts as the worst.

    Tune gets as many packs as workers can train at once; the next one is proposed while they do.
    The trials of a pack whose worker dies for good are tried again, each alone.

    A study that is resumed proposes all its trials again, with the scores on record. What has
    ended is not trained again, unless it shares a pack with a trial that has not: a trial's sums
    round as its pack is. For the same reason a pack that an earlier end of the study had cut stays
    cut.

    Workers with a GPU may have others beside them, on cores. Those get one pack at a time, these
    several at once, to be trained as one. Who gets which is left to chance: proposals depend on
    packs and their scores alone, and these in their last digits only on who trained them. A core
    that takes longer for its pack than a GPU for several would make that wait: it gets no more.

    Tune sees one trial a pack, with the config
    `{"pack": n, "trials": [{"number", "params", "duplicate_of"}, ...], "settled": [number, ...],
    "gpus": share}`; settled are those of its trials whose record stands.

    Args:
        space: The search space; None for the default configuration alone.
        default: Trial 0, and the values of what the space leaves out.
        max_evals: Trials of the study.
        packing: Pack size and packs in flight.
        workers: Packs trained at the same time.
        gpus: GPUs a worker.
        beside: More workers, without a GPU, beside those with one.
        algorithm: One of `SEARCHERS`.
        initial_points: Random trials before the algorithm models anything.
        mode: "max" or "min": which scores are better.
        seed: The study's seed.
        recorded: The trials on record.
        ends: What `max_evals` was before.
        when_proposed: Called when nothing is left to be proposed.
    """

    def __init__(
        self,
        space: SearchSpace | None,
        default: Hyperparameters,
        *,
        max_evals: int,
        packing: Packing,
        workers: int,
        gpus: float = 0.0,
        beside: int = 0,
        algorithm: str = "hyperopt",
        initial_points: int = 10,
        mode: str = "max",
        seed: int = 0,
        recorded: Mapping[int, TrialRecord] = MappingProxyType({}),
        ends: Iterable[int] = (),
        when_proposed: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._space, self._default = space, default
        self._max_evals, self._packing, self._gpus = max_evals, packing, gpus
        # How many workers there are by the GPUs of each.
        self._workers = {gpus: workers, **({0.0: beside} if gpus else {})}
        self._seconds: dict[float, float] = {}
        self._direction = mode
        self._searcher: Searcher | None = None
        self._told_default = False
        if space is not None:
            first = space.locate(default.to_dict())
            self._told_default = first is not None
            domains, make = domains_of(space), SEARCHERS[algorithm]
            self._searcher = make(domains, mode, initial_points, [first] if first else [], seed)
        self._recorded = recorded
        self._known = {number for number, trial in recorded.items() if trial.ended}
        self._scores = {n: t.result["score"] for n, t in recorded.items() if t.result is not None}
        self._ended: set[int] = set()
        self._parts = deque(_parts(max_evals, packing.pack_size, ends))
        self._when_proposed = when_proposed
        self._proposed: deque[dict[str, Any]] = deque()
        self._alone: deque[dict[str, Any]] = deque()
        self._packs_told = 0
        self._under_way: dict[str, dict[str, Any]] = {}
        self._proposals = _Proposals()

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
        self._propose_ahead()
        if not (self._alone or self._proposed or self._parts or self._under_way):
            return Searcher.FINISHED
        gpus = self._idle()
        if gpus is None or not (self._alone or self._proposed):
            return None
        pack = {**(self._alone.popleft() if self._alone else self._take(gpus)), "gpus": gpus}
        self._under_way[trial_id] = pack
        return pack

    def _propose_ahead(self) -> None:
        """Proposes what a worker may take at once."""
        while len(self._proposed) < self._packing.packs_a_gpu:
            pack = self._propose_part()
            if pack is None:
                return
            self._proposed.append(pack)

    def _idle(self) -> float | None:
        """Returns how much of a GPU a worker without a pack has, the most; None if all have one."""
        busy = Counter(pack["gpus"] for pack in self._under_way.values())
        idle = [gpus for gpus, workers in self._workers.items() if busy[gpus] < workers]
        return max(idle, default=None)

    def _take(self, gpus: float) -> dict[str, Any]:
        """Takes the next packs, of which a worker makes one."""
        most = self._packing.packs_a_gpu if gpus else 1
        packs = [self._proposed.popleft() for _ in range(min(most, len(self._proposed)))]
        return {
            "pack": packs[0]["pack"],
            "trials": [trial for pack in packs for trial in pack["trials"]],
            "settled": [number for pack in packs for number in pack["settled"]],
        }

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
            if self._gpus and self._workers[0.0] and not error:
                self._compare(pack, result["time_total_s"])
        left = set(trained(pack)) - self._scores.keys()
        if error and is_tried_in_parts(pack):
            alone = [member for member in pack["trials"] if member["number"] in left]
            self._alone += [{**pack, "trials": [member]} for member in alone]
        else:
            left.clear()
        self._ended |= {member["number"] for member in pack["trials"]} - left

    def _compare(self, pack: Mapping[str, Any], seconds: float) -> None:
        """Notes how long a whole pack took; cores get no more if GPUs have to wait for them."""
        whole = self._packing.pack_size * (self._packing.packs_a_gpu if pack["gpus"] else 1)
        if len(pack["trials"]) < whole:
            return
        self._seconds[pack["gpus"]] = seconds
        core, gpu = self._seconds.get(0.0), self._seconds.get(self._gpus)
        if core is not None and gpu is not None and core > gpu:
            self._workers[0.0] = 0
            told = f"cores get no more packs: one took {core:.1f} s for its, a GPU {gpu:.1f} s"
            print(told, file=sys.stderr, flush=True)

    def _propose_part(self) -> dict[str, Any] | None:
        """Proposes the next trials that are to be trained together."""
        while self._parts:
            numbers = self._parts[0]
            if len(self._proposals.trials) <= numbers[0] and not self._propose_pack():
                return None
            self._parts.popleft()
            if not self._parts:
                self._when_proposed()
            trials = self._proposals.trials[numbers.start : numbers.stop]
            for trial in trials:
                _check_same(trial, self._recorded.get(trial["number"]))
            if not self._known.issuperset(numbers):
                pack = numbers[0] // self._packing.pack_size
                return {"pack": pack, "trials": trials, "settled": self._settled(numbers)}
            self._ended.update(numbers)
        return None

    def _settled(self, numbers: Iterable[int]) -> list[int]:
        return [number for number in numbers if number in self._known]

    def _propose_pack(self) -> bool:
        """Proposes the next pack; False if it depends on one that has not ended.

        Whole, even if the study ends within it: the rest of it may be wanted later.
        """
        first, size = len(self._proposals.trials), self._packing.pack_size
        if not self._tell_up_to(first // size - self._packing.packs_in_flight):
            return False
        for params in self._propose(range(first, first + size)):
            self._proposals.add(params)
        return True

    def _propose(self, numbers: range) -> list[dict[str, Any]]:
        default = self._default.to_dict()
        if self._searcher is None or self._space is None:
            return [default] * len(numbers)
        untold = [default] if numbers[0] == 0 and not self._told_default else []
        points = ask(self._searcher, [str(number) for number in numbers[len(untold) :]])
        return untold + [{**default, **self._space.resolve(point)} for point in points]

    def _tell_up_to(self, last: int) -> bool:
        """Tells the scores of packs up to `last`; False if one of them has not ended."""
        size = self._packing.pack_size
        while self._packs_told <= last:
            numbers = range(self._packs_told * size, (self._packs_told + 1) * size)
            if not self._ended.issuperset(numbers):
                return False
            for number in numbers:
                self._tell(number)
            self._packs_told += 1
        return True

    def _tell(self, number: int) -> None:
        if self._searcher is None or (number == 0 and not self._told_default):
            return
        score = self._scores.get(self._proposals.original(number))
        told = WORST[self._direction] if score is None else score
        self._searcher.on_trial_complete(str(number), {SCORE: told, "training_iteration": 1})

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: a study resumes from its MLflow record."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing: a study resumes from its MLflow record."""


def _parts(max_evals: int, pack_size: int, ends: Iterable[int]) -> Iterator[range]:
    """Yields the numbers of the trials that are trained together."""
    cuts = {*range(0, max_evals, pack_size), *(end for end in ends if end < max_evals), max_evals}
    for first, stop in pairwise(sorted(cuts)):
        yield range(first, stop)


def _check_same(trial: dict[str, Any], recorded: TrialRecord | None) -> None:
    if recorded is None or not recorded.params:
        return
    proposed = json.loads(json.dumps(trial["params"]))
    if proposed != recorded.params:
        raise InputError(
            f"trial {trial['number']} must be proposed as it was before, got {proposed}, was "
            f"{recorded.params}; resume with the versions of Python's libraries and on the kind of "
            "processor that the study was begun with"
        )
