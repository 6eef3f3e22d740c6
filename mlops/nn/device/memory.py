"""Running out of a device's memory, as something to go on from."""

from __future__ import annotations

from collections.abc import Callable

import torch

# How it is said where it has no type of its own: by torch's allocator on a CPU, by C++, by cuBLAS
# and by CUDA itself.
_SAID = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "cublasCreate",  # CUBLAS_STATUS_NOT_INITIALIZED, for want of memory
    "CUDA error: out of memory",
)


def shortage(work: Callable[[], object]) -> str | None:
    """Does some work that may need more memory than there is.

    Args:
        work: To be called. When it runs out of memory, nothing that it has allocated is held by the
            error any more when this returns.

    Returns:
        What was asked for in vain, in a line; None if there was enough.
    """
    try:
        work()
        return None
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        said = str(error).strip().partition("\n")[0] or type(error).__name__
    # Only now is the error gone, and with it the frames in its traceback and what they held.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return said


def is_shortage(error: Exception) -> bool:
    """Tells whether an error says that there is not enough memory."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error) for words in _SAID
    )
