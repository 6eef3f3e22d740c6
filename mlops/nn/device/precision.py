"""How precisely products are computed; what learns is float32 in any case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
"""The type of the factors and results of products, by the name of a precision.

float32: as it is. tf32: a GPU rounds factors of float32 to 10 bits of mantissa (a CPU does not).
bf16: activations and gradients are held as bfloat16 too, 8 bits; losses, parameters and the
optimizer are float32.
"""


@contextmanager
def applied(precision: str, device: torch.device) -> Iterator[None]:
    """Lets a GPU take float32 products for TF32 meanwhile, or keeps it from that.

    Args:
        precision: A name in `DTYPES`.
        device: Where products are computed; on a CPU nothing is to be set.
    """
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before
