"""AdamW for a pack, with a learning rate and a weight decay a member."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlops.nn.mlp import PackedMLP

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class PackedAdamW:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101) on a flat tensor.

    torch's fused kernel takes one learning rate. Run with rate 1 on a tensor of zeros it leaves
    Adam's direction there, which is then scaled by each member's own rate: four calls however
    many members there are.
    """

    def __init__(self, pack: PackedMLP) -> None:
        self.pack = pack
        self.first_moment = torch.zeros_like(pack.parameters)
        self.second_moment = torch.zeros_like(pack.parameters)
        self.steps = torch.zeros((), device=pack.device)
        self._prepare()

    def _prepare(self) -> None:
        members = self.pack.members
        self.rate = self._flat([m.learning_rate for m in members])
        self.shrink = self._flat([1.0 - m.learning_rate * m.weight_decay for m in members])
        self.direction = torch.zeros_like(self.pack.parameters)

    def _flat(self, values: Sequence[float]) -> Tensor:
        """Spreads one value a member over the parameters: [parameters] float32."""
        flat = torch.empty_like(self.pack.parameters)
        for layer in self.pack.by_layer(flat):
            layer.copy_(self.pack.column(values).expand_as(layer))
        return flat

    def step(self) -> None:
        """Updates the pack's parameters from its gradients."""
        self.steps.add_(1)
        self.direction.zero_()
        torch._fused_adamw_(
            [self.direction],
            [self.pack.gradients],
            [self.first_moment],
            [self.second_moment],
            [],
            [self.steps],
            lr=1.0,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )
        self.pack.parameters.mul_(self.shrink).addcmul_(self.direction, self.rate)

    def select(self, keep: Sequence[int], pack: PackedMLP) -> None:
        """Goes on with the members `keep` of the old pack, which `pack` holds."""
        self.first_moment = self.pack.select_flat(self.first_moment, keep)
        self.second_moment = self.pack.select_flat(self.second_moment, keep)
        self.pack = pack
        self._prepare()
