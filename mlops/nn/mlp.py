"""One multilayer perceptron."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn import activations


class MLP(torch.nn.Module):
    """A plain multilayer perceptron: what a member of a pack is once it leaves the pack.

    Args:
        n_features: Width of the input.
        n_outputs: Width of the output.
        hidden_dims: Width of each hidden layer.
        activation: A name of `mlops.configuration.hyperparameters.ACTIVATIONS`.
        dropout: Probability of dropping a hidden unit in train mode.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden_dims: Sequence[int],
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [n_features, *hidden_dims, n_outputs]
        linears = [torch.nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths)]
        self.layers = torch.nn.ModuleList(linears)
        self.activation = activations.BY_NAME[activation].function
        self.dropout = dropout

    @classmethod
    def of(cls, hyperparameters: Hyperparameters, n_features: int, n_outputs: int) -> MLP:
        """Makes the network of a configuration."""
        return cls(
            n_features,
            n_outputs,
            hyperparameters.hidden_dims,
            hyperparameters.activation,
            hyperparameters.dropout,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps x: [B, F] float32 to outputs: [B, n_outputs] float32."""
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
