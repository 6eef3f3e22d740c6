"""Forward and backward of a pack, on buffers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlops.nn.packed import PackedMLP


class Workspace:
    """The buffers of a pack for one number of rows, with every view a step needs made once.

    A step is then a handful of calls that write where they are told: at the sizes of tables, a
    step's time is mostly the number of calls (measured: 2x an autograd step at K = 1).
    """

    def __init__(self, pack: PackedMLP, n_rows: int) -> None:
        size = len(pack)
        self.pack = pack
        self.n_rows = n_rows
        self.z = [self._empty(width) for width in pack.widths]
        self.outputs = [pack.rows_with_one(size, n_rows, width) for width in pack.widths]
        self.hidden = [
            output[:, :, :width] for output, width in zip(self.outputs, pack.widths, strict=True)
        ]
        self.final = self._empty(pack.n_outputs)
        self.output_weight_t = pack.factors[-1].transpose(1, 2)
        self.activations = [
            [(act.forward, z[part], h[part]) for part, act in pack.activation_segments()]
            for z, h in zip(self.z, self.hidden, strict=True)
        ]

    def _empty(self, width: int, dtype: torch.dtype | None = None) -> Tensor:
        pack = self.pack
        shape = (len(pack), self.n_rows, width)
        return torch.empty(shape, device=pack.device, dtype=dtype or pack.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the outputs of every member for the same rows.

        Args:
            x: [K, B, row length of F], the same rows for every member, see `rows_with_one`.

        Returns:
            Outputs: [K, B, outputs], a buffer of this workspace.
        """
        self.pack.round_parameters()
        for i, weight in enumerate(self.pack.factors[:-1]):
            torch.bmm(x, weight, out=self.z[i])
            for activate, z, hidden in self.activations[i]:
                activate(z, hidden)
            self.drop(i)
            x = self.outputs[i]
        return torch.bmm(x, self.output_weight_t, out=self.final)

    def drop(self, layer: int) -> None:
        """Drops hidden units of one layer: none outside training."""


class TrainingWorkspace(Workspace):
    """A workspace that also drops units and goes backward."""

    def __init__(self, pack: PackedMLP, n_rows: int) -> None:
        super().__init__(pack, n_rows)
        self.gradients = [torch.empty_like(z) for z in self.z]
        self.outputs_t = [output.transpose(1, 2) for output in self.outputs]
        self.noise: Sequence[Tensor] = ()
        self.masks = [torch.empty_like(z) for z in self.z] if pack.has_dropout else []
        self.inverse_keep = 1.0 / pack.keep
        self.output_gradients = self._empty(pack.n_outputs, torch.float32)
        self._upstream = self.output_gradients.to(pack.dtype)
        self._upstream_t = self._upstream.transpose(1, 2)
        inputs = pack.inputs
        self.output_weight = pack.factors[-1][:, :, : inputs[-1]]
        self.weights_t = [
            weight[:, :n_in].transpose(1, 2)
            for weight, n_in in zip(pack.factors[:-1], inputs, strict=False)
        ]
        self.activation_gradients = [
            [(act.backward, g[part], z[part]) for part, act in pack.activation_segments()]
            for g, z in zip(self.gradients, self.z, strict=True)
        ]

    def drop(self, layer: int) -> None:
        """Drops units where `noise[layer]`, [B, width] in 0..1, exceeds a member's keep rate."""
        if self.masks:
            mask = self.masks[layer]
            torch.lt(self.noise[layer], self.pack.keep, out=mask)
            mask.mul_(self.inverse_keep)
            self.hidden[layer].mul_(mask)

    def backward(self, x_t: Tensor) -> None:
        """Fills the pack's gradients from `output_gradients`, after `forward` on the same rows.

        Args:
            x_t: The input of `forward` with its last two dimensions transposed.
        """
        products, gradients = self.pack.products, self.gradients
        if self._upstream is not self.output_gradients:
            self._upstream.copy_(self.output_gradients)
        torch.bmm(self._upstream_t, self.outputs[-1], out=products[-1])
        torch.bmm(self._upstream, self.output_weight, out=gradients[-1])
        for i in reversed(range(len(gradients))):
            if self.masks:
                gradients[i].mul_(self.masks[i])
            for differentiate, gradient, z in self.activation_gradients[i]:
                differentiate(gradient, z)
            if i == 0:
                torch.bmm(x_t, gradients[0], out=products[0])
            else:
                torch.bmm(self.outputs_t[i - 1], gradients[i], out=products[i])
                torch.bmm(gradients[i], self.weights_t[i], out=gradients[i - 1])
        self.pack.widen_gradients()
