"""AdamW for a pack, with a learning rate and a weight decay a member."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mlops.nn.packed import PackedMLP

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
# Parameters a member from which, on a CPU, a kernel call for each member is the faster way
# (measured: 0.5x the time at 80,000, equal at 11,000, 5x at 700).
LARGE_MEMBER = 20_000
# Tensors to give the kernel in place of one, as on a GPU it takes a block of threads for 65,536
# elements of a tensor, which would leave most of the GPU idle; and 36 tensors a launch.
PARTS = {"cuda": 32}


class _Call(NamedTuple):
    """Arguments of one call of the fused kernel."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    first_moments: list[Tensor]
    second_moments: list[Tensor]
    rate: float
    decay: float


class _Scale(NamedTuple):
    """What members of one call are scaled by, and what is scaled: flat tensors."""

    direction: Tensor
    rate: Tensor
    shrink: Tensor


class PackedAdamW:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101) on a flat tensor.

    torch's fused kernel takes one learning rate. Large members, bound by memory, get a call each.
    Small ones, and all on a GPU, bound by the number of calls, share one: with rate 1 and decay 1
    the kernel clears a tensor and leaves Adam's direction there, which is then scaled by each
    member's own rate. Nothing but the tensors changes from step to step, so steps can be replayed.
    """

    def __init__(self, pack: PackedMLP) -> None:
        self.pack = pack
        self.first_moment = torch.zeros_like(pack.parameters)
        self.second_moment = torch.zeros_like(pack.parameters)
        self.steps = torch.zeros((), device=pack.device)
        self._prepare()

    def _prepare(self) -> None:
        members = self.pack.members
        large = self.pack.device.type == "cpu" and len(self.pack.parameters) >= LARGE_MEMBER * len(
            members
        )
        self.calls: list[_Call] = []
        self.scale: _Scale | None = None
        if large or len(members) == 1:
            self.calls = self._call_each()
            return
        self.scale = _Scale(
            torch.zeros_like(self.pack.parameters),
            self._flat([m.learning_rate for m in members]),
            self._flat([1.0 - m.learning_rate * m.weight_decay for m in members]),
        )
        self.calls = [
            _Call(
                self._parts(self.scale.direction),
                self._parts(self.pack.gradients),
                self._parts(self.first_moment),
                self._parts(self.second_moment),
                rate=1.0,
                decay=1.0,
            )
        ]

    def _call_each(self) -> list[_Call]:
        weights, gradients = self.pack.weights, self.pack.by_layer(self.pack.gradients)
        first_moments = self.pack.by_layer(self.first_moment)
        second_moments = self.pack.by_layer(self.second_moment)
        return [
            _Call(
                [layer[k] for layer in weights],
                [layer[k] for layer in gradients],
                [layer[k] for layer in first_moments],
                [layer[k] for layer in second_moments],
                member.learning_rate,
                member.weight_decay,
            )
            for k, member in enumerate(self.pack.members)
        ]

    def _parts(self, flat: Tensor) -> list[Tensor]:
        """Views a flat tensor as parts, which begin at multiples of four elements: 16 bytes."""
        parts = PARTS.get(self.pack.device.type, 1)
        return list(flat.split(4 * math.ceil(len(flat) / (4 * parts))))

    def _flat(self, values: Sequence[float]) -> Tensor:
        """Spreads one value a member over the parameters: [parameters] float32."""
        flat = torch.empty_like(self.pack.parameters)
        for layer in self.pack.by_layer(flat):
            layer.copy_(self.pack.column(values).expand_as(layer))
        return flat

    def step(self) -> None:
        """Updates the pack's parameters from its gradients."""
        self.steps.add_(1)
        for call in self.calls:
            torch._fused_adamw_(
                call.parameters,
                call.gradients,
                call.first_moments,
                call.second_moments,
                [],
                [self.steps] * len(call.parameters),
                lr=call.rate,
                beta1=BETA1,
                beta2=BETA2,
                weight_decay=call.decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )
        if self.scale is not None:
            direction, rate, shrink = self.scale
            self.pack.parameters.mul_(shrink).addcmul_(direction, rate)

    def release(self) -> None:
        """Gives back the memory of what is made anew for a selection, which has to follow."""
        self.calls, self.scale = [], None

    def select(self, keep: Sequence[int], pack: PackedMLP) -> None:
        """Goes on with the members `keep` of the old pack, which `pack` holds."""
        self.first_moment = self.pack.select_flat(self.first_moment, keep)
        self.second_moment = self.pack.select_flat(self.second_moment, keep)
        self.pack = pack
        self._prepare()
