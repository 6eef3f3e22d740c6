"""Activations as pairs of forward and backward that write into buffers they are given.

Each maps 0 to 0, which keeps the padding of a pack exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_aten = torch.ops.aten


class Activation(NamedTuple):
    """An activation on buffers of one shape.

    Attributes:
        forward: `forward(z, h)` writes the activation of `z` into `h`; it may overwrite `z` with
            what `backward` needs.
        backward: `backward(grad, z)` turns the gradient by `h` into the gradient by the original
            `z`, in place.
        function: The same as a plain differentiable function.
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]
    function: Callable[[Tensor], Tensor]


def _gelu_forward(z: Tensor, h: Tensor) -> None:
    # gelu's own `out=` silently writes nothing into a strided tensor (torch 2.13, CPU).
    h.copy_(torch.nn.functional.gelu(z))


def _tanh_forward(z: Tensor, h: Tensor) -> None:
    torch.tanh(z, out=z)
    h.copy_(z)


BY_NAME: dict[str, Activation] = {
    "relu": Activation(
        lambda z, h: torch.clamp_min(z, 0.0, out=h),
        lambda grad, z: _aten.threshold_backward.grad_input(grad, z, 0.0, grad_input=grad),
        torch.nn.functional.relu,
    ),
    "gelu": Activation(
        _gelu_forward,
        lambda grad, z: _aten.gelu_backward.grad_input(grad, z, grad_input=grad),
        torch.nn.functional.gelu,
    ),
    "silu": Activation(
        lambda z, h: _aten.silu.out(z, out=h),
        lambda grad, z: _aten.silu_backward.grad_input(grad, z, grad_input=grad),
        torch.nn.functional.silu,
    ),
    "tanh": Activation(
        _tanh_forward,
        lambda grad, z: _aten.tanh_backward.grad_input(grad, z, grad_input=grad),
        torch.tanh,
    ),
}
