"""One multilayer perceptron, and K of them as one program on batched matrices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn import activations

# Elements to a multiple of which a row is stored. A GPU's fast products want 16 bytes, also of
# bfloat16; on a CPU that gains nothing (docs/experiments.md).
ALIGNMENT = {"cpu": 1, "cuda": 8}


class MLP(torch.nn.Module):
    """A plain multilayer perceptron: what a member of a pack is once it leaves the pack.

    Args:
        n_features: Width of the input.
        n_classes: Width of the output.
        hidden_dims: Width of each hidden layer.
        activation: A name of `mlops.configuration.hyperparameters.ACTIVATIONS`.
        dropout: Probability of dropping a hidden unit in train mode.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        hidden_dims: Sequence[int],
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [n_features, *hidden_dims, n_classes]
        linears = [torch.nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths)]
        self.layers = torch.nn.ModuleList(linears)
        self.activation = activations.BY_NAME[activation].function
        self.dropout = dropout

    @classmethod
    def of(cls, hyperparameters: Hyperparameters, n_features: int, n_classes: int) -> MLP:
        """Makes the network of a configuration."""
        return cls(
            n_features,
            n_classes,
            hyperparameters.hidden_dims,
            hyperparameters.activation,
            hyperparameters.dropout,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps x: [B, F] float32 to logits: [B, C] float32."""
        *hidden, output = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
            x = torch.nn.functional.dropout(x, self.dropout, self.training)
        return output(x)

    def linears(self) -> list[torch.nn.Linear]:
        """Returns the layers, the output layer last."""
        return [layer for layer in self.layers if isinstance(layer, torch.nn.Linear)]

    def reset(self, generator: torch.Generator) -> MLP:
        """Draws initial weights, see `initial_layers`."""
        layers = self.linears()
        widths = [layer.in_features for layer in layers] + [layers[-1].out_features]
        with torch.no_grad():
            for layer, (weight, bias) in zip(
                layers, initial_layers(widths, generator), strict=True
            ):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
        return self


def initial_layers(
    widths: Sequence[int], generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draws weights uniformly from ±1/sqrt(inputs), as `torch.nn.Linear` does.

    Args:
        widths: Width of the input and of every layer.
        generator: What to draw from, layer by layer, weights first.

    Yields:
        Each layer's weight and bias, [outputs, inputs] and [outputs].
    """
    for n_in, n_out in pairwise(widths):
        bound = n_in**-0.5
        draws = torch.empty(n_out * (n_in + 1)).uniform_(-bound, bound, generator=generator)
        yield draws[: n_out * n_in].view(n_out, n_in), draws[n_out * n_in :]


class PackedMLP:
    """K perceptrons of one depth as one program; forward and backward are written by hand.

    Layer l of all members is one tensor: [K, inputs + 1, outputs] for hidden layers, whose last row
    is the bias (the inputs carry a constant 1), and [K, classes, inputs + 1] for the output layer,
    the faster way round for few outputs (measured: 2x at 2 classes). Narrow members are padded
    with weights that are zero and stay zero: a padded unit's activation is 0, so its gradient is 0.
    So are inputs and widths padded to what the device likes, see `ALIGNMENT`. All parameters lie in
    one flat tensor, gradients in another.

    In bfloat16 products are computed on a copy of the parameters, and their gradients in such a
    tensor too; what learns is float32.

    Args:
        members: Configurations, all with the same number of hidden layers; those with the same
            activation side by side.
        n_features: Width of the input.
        n_classes: Width of the output.
        device: Where the tensors live.
        widths: The widths to pad to; the widest member's by default.
        dtype: Of the products, float32 or bfloat16.
        alignment: What rows are padded to a multiple of; what suits the device by default.
    """

    def __init__(
        self,
        members: Sequence[Hyperparameters],
        n_features: int,
        n_classes: int,
        device: torch.device | str = "cpu",
        widths: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        alignment: int | None = None,
    ) -> None:
        self.members = list(members)
        self.n_features, self.n_classes = n_features, n_classes
        self.device, self.dtype = torch.device(device), dtype
        self.alignment = alignment or ALIGNMENT[self.device.type]
        widest = widths or map(max, zip(*(m.hidden_dims for m in members), strict=True))
        self.widths = [self._aligned(width) for width in widest]
        self.inputs = [n_features, *self.widths]
        size = len(self.members)
        shapes = [
            (size, self.row_length(n_in), n_out)
            for n_in, n_out in zip(self.inputs, self.widths, strict=False)
        ]
        shapes.append((size, n_classes, self.row_length(self.inputs[-1])))
        counts = [a * b * c for a, b, c in shapes]
        self.parameters = torch.zeros(sum(counts), device=self.device)
        self.gradients = torch.zeros_like(self.parameters)
        self.shapes = shapes
        self.weights = self.by_layer(self.parameters)
        # What products read and write: the same tensors, unless the products are less precise.
        self._factors, self._products = self.parameters, self.gradients
        if dtype != torch.float32:
            self._factors = torch.zeros_like(self.parameters, dtype=dtype)
            self._products = torch.zeros_like(self._factors)
        self.factors = self.by_layer(self._factors)
        self.products = self.by_layer(self._products)
        self.keep = self.column([1.0 - member.dropout for member in members])
        self.has_dropout = any(member.dropout > 0 for member in members)

    def __len__(self) -> int:
        return len(self.members)

    def _aligned(self, length: int) -> int:
        return -(-length // self.alignment) * self.alignment

    def row_length(self, width: int) -> int:
        """Returns how long a row of `width` values and the constant 1 is."""
        return self._aligned(width + 1)

    def rows_with_one(self, *shape: int) -> Tensor:
        """Returns rows of zeros but for the 1 that meets the bias: [..., width] to longer rows."""
        *outer, width = shape
        rows = torch.zeros(*outer, self.row_length(width), device=self.device, dtype=self.dtype)
        rows[..., width] = 1.0
        return rows

    def round_parameters(self) -> None:
        """Brings the parameters, before products, to the precision of the products."""
        if self._factors is not self.parameters:
            self._factors.copy_(self.parameters)

    def widen_gradients(self) -> None:
        """Brings the gradients, after products, to float32."""
        if self._products is not self.gradients:
            self.gradients.copy_(self._products)

    def by_layer(self, flat: Tensor) -> list[Tensor]:
        """Views a flat tensor of the parameters' size as one [K, ., .] tensor a layer."""
        pieces = flat.split([a * b * c for a, b, c in self.shapes])
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def column(self, values: Sequence[float]) -> Tensor:
        """Returns one value a member in a shape that broadcasts: [K, 1, 1] float32."""
        return torch.tensor(values, dtype=torch.float32, device=self.device).view(-1, 1, 1)

    def activation_segments(self) -> Iterator[tuple[slice, activations.Activation]]:
        """Yields each run of neighbouring members that share an activation."""
        start = 0
        for name, run in groupby(member.activation for member in self.members):
            stop = start + sum(1 for _ in run)
            yield slice(start, stop), activations.BY_NAME[name]
            start = stop

    def load_member(self, k: int, mlp: MLP) -> None:
        """Copies a plain perceptron's weights into member k."""
        flat = self.parameters.cpu()
        layers = [(layer.weight.detach(), layer.bias.detach()) for layer in mlp.linears()]
        self._write_member(k, layers, self._arrays(flat))
        self.parameters.copy_(flat)

    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """Draws every member's initial weights from its own generator, as `MLP.reset` does."""
        # On the CPU, and taken to a GPU at once: a copy a tensor is 10x slower.
        flat = torch.zeros(len(self.parameters))
        arrays = self._arrays(flat)
        for k, (member, generator) in enumerate(zip(self.members, generators, strict=True)):
            widths = [self.n_features, *member.hidden_dims, self.n_classes]
            self._write_member(k, initial_layers(widths, generator), arrays)
        self.parameters.copy_(flat)

    def _arrays(self, flat: Tensor) -> list[np.ndarray]:
        """Views a flat tensor on the CPU as `by_layer` does, in numpy: its calls take a third."""
        return [layer.numpy() for layer in self.by_layer(flat)]

    def _write_member(
        self, k: int, layers: Iterable[tuple[Tensor, Tensor]], arrays: Sequence[np.ndarray]
    ) -> None:
        """Copies weight and bias of each layer into member k."""
        for i, (weight, bias) in enumerate(layers):
            n_out, n_in = weight.shape
            member = arrays[i][k] if i < len(self.widths) else arrays[i][k].T
            member[:n_in, :n_out] = weight.numpy().T
            member[self.inputs[i], :n_out] = bias.numpy()

    def member_weights(self, k: int, flat: Tensor | None = None) -> dict[str, Tensor]:
        """Returns member k's weights, unpadded, under the names of `MLP.state_dict()`.

        Args:
            k: The member.
            flat: Parameters to read instead of the current ones.
        """
        arrays = self._arrays((self.parameters if flat is None else flat).cpu())
        tensors: dict[str, Tensor] = {}
        widths = [self.n_features, *self.members[k].hidden_dims, self.n_classes]
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            member = arrays[i][k] if i < len(self.widths) else arrays[i][k].T
            tensors[f"layers.{i}.weight"] = torch.from_numpy(member[:n_in, :n_out].T.copy())
            tensors[f"layers.{i}.bias"] = torch.from_numpy(member[self.inputs[i], :n_out].copy())
        return tensors

    def select(self, keep: Sequence[int]) -> PackedMLP:
        """Returns a pack of the members `keep`, padded as before: their runs go on unchanged."""
        members = [self.members[k] for k in keep]
        pack = PackedMLP(
            members,
            self.n_features,
            self.n_classes,
            self.device,
            self.widths,
            self.dtype,
            self.alignment,
        )
        pack.parameters.copy_(self.select_flat(self.parameters, keep))
        return pack

    def select_flat(self, flat: Tensor, keep: Sequence[int]) -> Tensor:
        """Returns the part of a flat tensor that belongs to the members `keep`."""
        return torch.cat([layer[list(keep)].flatten() for layer in self.by_layer(flat)])


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
        self.logits = self._empty(pack.n_classes)
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
        """Computes the logits of every member for the same rows.

        Args:
            x: [K, B, row length of F], the same rows for every member, see `rows_with_one`.

        Returns:
            Logits: [K, B, C], a buffer of this workspace.
        """
        self.pack.round_parameters()
        for i, weight in enumerate(self.pack.factors[:-1]):
            torch.bmm(x, weight, out=self.z[i])
            for activate, z, hidden in self.activations[i]:
                activate(z, hidden)
            self.drop(i)
            x = self.outputs[i]
        return torch.bmm(x, self.output_weight_t, out=self.logits)

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
        self.logit_gradients = self._empty(pack.n_classes, torch.float32)
        self._upstream = self.logit_gradients.to(pack.dtype)
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
        """Fills the pack's gradients from `logit_gradients`, after `forward` on the same rows.

        Args:
            x_t: The input of `forward` with its last two dimensions transposed.
        """
        products, gradients = self.pack.products, self.gradients
        if self._upstream is not self.logit_gradients:
            self._upstream.copy_(self.logit_gradients)
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
