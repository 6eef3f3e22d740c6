"""Work queued on a GPU: a stream for each group, and CUDA graphs so that launches do not dominate.

On a CPU the same work is called as it is. Written from torch's documentation and source
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs); one H200 has run it
(docs/experiments.md, 2026-11-27).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from mlops.nn.device.memory import is_shortage

# Pieces of work that the host may be ahead of the GPU: their input waits in pinned memory.
PIECES_AHEAD = 4
# A capture takes the host about as long as two or three calls, and work that is called less often
# than that before its tensors shrink does better without. Assumed, not measured.
CALLS_BEFORE_CAPTURE = 3

logger = logging.getLogger(__name__)


class Lane:
    """Where the work of one group queues up: a CUDA stream of its own; nothing on a CPU.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._pieces: deque[torch.cuda.Event] = deque()

    def entered(self) -> AbstractContextManager[object]:
        """Returns the context in which work is queued here."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def fill(self, buffer: Tensor, values: Tensor) -> None:
        """Copies values of the host into a buffer; the host does not wait for a GPU."""
        if self._stream is not None:
            # torch gives pinned memory to others only when what reads it has been done.
            values = values.contiguous().pin_memory()
        buffer.copy_(values, non_blocking=True)

    def fetch(self, tensor: Tensor) -> Tensor:
        """Waits for a tensor and returns it on the CPU, where that is the tensor itself."""
        return tensor.cpu()

    def pace(self) -> None:
        """Ends a piece of work, and waits while a GPU has too many before it."""
        if self._stream is not None:
            event = torch.cuda.Event()
            event.record(self._stream)
            self._pieces.append(event)
            if len(self._pieces) > PIECES_AHEAD:
                self._pieces.popleft().synchronize()

    def finish(self) -> None:
        """Waits until all that was queued here is done."""
        if self._stream is not None:
            self._stream.synchronize()
        self._pieces.clear()

    def graphs(self) -> Graphs:
        """Makes a set of graphs, for work that is queued here."""
        return Graphs(self._stream)


class Graphs:
    """Graphs that share memory for what they hold while they run; they go together.

    Attributes:
        are_possible: Whether CUDA has refused no capture of this process yet.
    """

    are_possible = True

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self._stream = stream
        # Not shared with graphs of before: torch refuses a pool whose graphs are all gone.
        self._pool = torch.cuda.graph_pool_handle() if stream is not None else None

    def replayable(self, work: Callable[[], None]) -> Callable[[], None]:
        """Returns the work in the form in which it is best called often.

        Args:
            work: Reads and writes the same tensors each time, makes none that last, and never waits
                for the device.
        """
        return work if self._stream is None else _Replayed(work, self)

    def capture(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """Captures work without running it; returns None where that cannot be done."""
        if self._stream is None or not Graphs.are_possible:
            return None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                work()
        except RuntimeError as error:
            _complain(str(error).partition("\n")[0])
            self._stream = None
            # Too little memory ends a capture in order. One that CUDA refuses does not give its
            # memory back (https://github.com/pytorch/pytorch/pull/190348): once is enough.
            Graphs.are_possible = is_shortage(error)
            return None
        return graph


class _Replayed:
    """Called as it is at first, which warms up what captures need; then captured."""

    def __init__(self, work: Callable[[], None], graphs: Graphs) -> None:
        self._work, self._graphs = work, graphs
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def __call__(self) -> None:
        if self._graph is None and self._calls >= CALLS_BEFORE_CAPTURE:
            self._graph = self._graphs.capture(self._work)
        if self._graph is None:
            self._calls += 1
            self._work()
        else:
            self._graph.replay()


@lru_cache
def _complain(problem: str) -> None:
    """Says once a process and problem that graphs are done without."""
    logger.warning("training goes on without CUDA graphs: %s", problem)
