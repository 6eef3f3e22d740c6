"""One multilayer perceptron, and K of them as one program on batched matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor

from mlops.hyperparameters import Hyperparameters
from mlops.nn import activations


class MLP(torch.nn.Module):
    """A plain multilayer perceptron: what a member of a pack is once it leaves the pack.

    Args:
        n_features: Width of the input.
        n_classes: Width of the output.
        hidden_dims: Width of each hidden layer.
        activation: A name of `mlops.hyperparameters.ACTIVATIONS`.
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
        """Draws initial weights uniformly from ±1/sqrt(inputs), as `torch.nn.Linear` does."""
        for layer in self.linears():
            bound = layer.in_features**-0.5
            with torch.no_grad():
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
        return self


class PackedMLP:
    """K perceptrons of one depth as one program; forward and backward are written by hand.

    Layer l of all members is one tensor: [K, inputs + 1, outputs] for hidden layers, whose last row
    is the bias (the inputs carry a constant 1), and [K, classes, inputs + 1] for the output layer,
    the faster way round for few outputs (measured: 2x at 2 classes). Narrow members are padded
    with weights that are zero and stay zero: a padded unit's activation is 0, so its gradient is 0.
    All parameters lie in one flat tensor, gradients in another.

    Args:
        members: Configurations, all with the same number of hidden layers; those with the same
            activation side by side.
        n_features: Width of the input.
        n_classes: Width of the output.
        device: Where the tensors live.
        widths: The widths to pad to; the widest member's by default.
    """

    def __init__(
        self,
        members: Sequence[Hyperparameters],
        n_features: int,
        n_classes: int,
        device: torch.device | str = "cpu",
        widths: Sequence[int] | None = None,
    ) -> None:
        self.members = list(members)
        self.n_features, self.n_classes = n_features, n_classes
        self.device = torch.device(device)
        self.widths = list(widths or map(max, zip(*(m.hidden_dims for m in members), strict=True)))
        inputs = [n_features, *self.widths]
        size = len(self.members)
        shapes = [(size, n_in + 1, n_out) for n_in, n_out in zip(inputs, self.widths, strict=False)]
        shapes.append((size, n_classes, inputs[-1] + 1))
        counts = [a * b * c for a, b, c in shapes]
        self.parameters = torch.zeros(sum(counts), device=self.device)
        self.gradients = torch.zeros_like(self.parameters)
        self.shapes = shapes
        self.weights = self.by_layer(self.parameters)
        self.weight_gradients = self.by_layer(self.gradients)
        self.keep = self.column([1.0 - member.dropout for member in members])
        self.has_dropout = any(member.dropout > 0 for member in members)

    def __len__(self) -> int:
        return len(self.members)

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
        *hidden, output = mlp.linears()
        for weight, layer in zip(self.weights, hidden, strict=False):
            weight[k, : layer.in_features, : layer.out_features] = layer.weight.detach().T
            weight[k, -1, : layer.out_features] = layer.bias.detach()
        self.weights[-1][k, :, : output.in_features] = output.weight.detach()
        self.weights[-1][k, :, -1] = output.bias.detach()

    def member_weights(self, k: int, flat: Tensor | None = None) -> dict[str, Tensor]:
        """Returns member k's weights, unpadded, under the names of `MLP.state_dict()`.

        Args:
            k: The member.
            flat: Parameters to read instead of the current ones.
        """
        weights = self.weights if flat is None else self.by_layer(flat)
        tensors: dict[str, Tensor] = {}
        n_in = self.n_features
        for i, (weight, n_out) in enumerate(
            zip(weights, self.members[k].hidden_dims, strict=False)
        ):
            tensors[f"layers.{i}.weight"] = weight[k, :n_in, :n_out].T
            tensors[f"layers.{i}.bias"] = weight[k, -1, :n_out]
            n_in = n_out
        last = len(self.widths)
        tensors[f"layers.{last}.weight"] = weights[-1][k, :, :n_in]
        tensors[f"layers.{last}.bias"] = weights[-1][k, :, -1]
        return {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}

    def select(self, keep: Sequence[int]) -> PackedMLP:
        """Returns a pack of the members `keep`, padded as before: their runs go on unchanged."""
        members = [self.members[k] for k in keep]
        pack = PackedMLP(members, self.n_features, self.n_classes, self.device, self.widths)
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
        size, device = len(pack), pack.device
        self.pack = pack
        self.n_rows = n_rows
        self.z = [torch.empty(size, n_rows, width, device=device) for width in pack.widths]
        # The last column is the constant 1 that meets the bias.
        self.outputs = [torch.ones(size, n_rows, width + 1, device=device) for width in pack.widths]
        self.hidden = [output[:, :, :-1] for output in self.outputs]
        self.logits = torch.empty(size, n_rows, pack.n_classes, device=device)
        self.output_weight_t = pack.weights[-1].transpose(1, 2)
        self.activations = [
            [(act.forward, z[part], h[part]) for part, act in pack.activation_segments()]
            for z, h in zip(self.z, self.hidden, strict=True)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of every member for the same rows.

        Args:
            x: [K, B, F + 1] float32, the same rows for every member, the last column 1.

        Returns:
            Logits: [K, B, C] float32, a buffer of this workspace.
        """
        for i, weight in enumerate(self.pack.weights[:-1]):
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
        self.logit_gradients = torch.empty_like(self.logits)
        self.logit_gradients_t = self.logit_gradients.transpose(1, 2)
        self.output_weight = pack.weights[-1][:, :, :-1]
        self.weights_t = [weight[:, :-1].transpose(1, 2) for weight in pack.weights[:-1]]
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
            x_t: [K, F + 1, B] float32, the input of `forward` transposed.
        """
        weight_gradients, gradients = self.pack.weight_gradients, self.gradients
        torch.bmm(self.logit_gradients_t, self.outputs[-1], out=weight_gradients[-1])
        torch.bmm(self.logit_gradients, self.output_weight, out=gradients[-1])
        for i in reversed(range(len(gradients))):
            if self.masks:
                gradients[i].mul_(self.masks[i])
            for differentiate, gradient, z in self.activation_gradients[i]:
                differentiate(gradient, z)
            if i == 0:
                torch.bmm(x_t, gradients[0], out=weight_gradients[0])
            else:
                torch.bmm(self.outputs_t[i - 1], gradients[i], out=weight_gradients[i])
                torch.bmm(gradients[i], self.weights_t[i], out=gradients[i - 1])
