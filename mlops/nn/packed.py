"""K multilayer perceptrons as one program on batched matrices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn import activations
from mlops.nn.mlp import MLP, initial_layers

# Elements to a multiple of which a row is stored. A GPU's fast products want 16 bytes, also of
# bfloat16; on a CPU that gains nothing (docs/experiments.md).
ALIGNMENT = {"cpu": 1, "cuda": 8}


class PackedMLP:
    """K perceptrons of one depth as one program; forward and backward are written by hand.

    Layer l of all members is one tensor: [K, inputs + 1, outputs] for hidden layers, whose last row
    is the bias (the inputs carry a constant 1), and [K, outputs, inputs + 1] for the output layer,
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
        n_outputs: Width of the output.
        device: Where the tensors live.
        widths: The widths to pad to; the widest member's by default.
        dtype: Of the products, float32 or bfloat16.
        alignment: What rows are padded to a multiple of; what suits the device by default.
    """

    def __init__(
        self,
        members: Sequence[Hyperparameters],
        n_features: int,
        n_outputs: int,
        device: torch.device | str = "cpu",
        widths: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        alignment: int | None = None,
    ) -> None:
        self.members = list(members)
        self.n_features, self.n_outputs = n_features, n_outputs
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
        shapes.append((size, n_outputs, self.row_length(self.inputs[-1])))
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
            widths = [self.n_features, *member.hidden_dims, self.n_outputs]
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
        widths = [self.n_features, *self.members[k].hidden_dims, self.n_outputs]
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
            self.n_outputs,
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
