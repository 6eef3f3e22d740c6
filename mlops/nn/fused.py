"""A pack's elementwise work on a GPU in few kernels, which read and write each tensor once.

torch's own calls would read and write activations some fourteen times a layer and step where five
times are enough, and at the sizes of tables a step's time is mostly the number of kernels. Where
Triton or its compiler is missing, torch's calls do it.
"""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from mlops.hyperparameters import Hyperparameters
from mlops.nn.memory import is_shortage
from mlops.nn.mlp import PackedMLP, TrainingWorkspace

# Elements that a program of a kernel takes at once: 16 of each of 128 threads.
TILE = 2048
# Columns of a tile: enough for whole lines of memory, and few for many programs.
COLUMNS = 64
# Parameters that a program takes: 8 of each of 128 threads.
BLOCK = 1024

_CODES = {"relu": 0, "gelu": 1, "silu": 2, "tanh": 3}

logger = logging.getLogger(__name__)


@lru_cache
def kernels(device: str) -> ModuleType | None:
    """Returns the kernels of a type of device; None, said once, where they cannot be had."""
    if device != "cuda":
        return None
    try:
        from mlops.nn import kernels as ours

        _try(ours)
        return ours
    except Exception as error:  # whatever a compiler that is half there may raise
        if is_shortage(error):
            raise
        problem = str(error).strip().partition("\n")[0] or type(error).__name__
        logger.warning("training goes on without GPU kernels of its own: %s", problem)
        return None


def training_workspace(pack: PackedMLP, n_rows: int) -> TrainingWorkspace:
    """Makes buffers for training steps of so many rows, with kernels where they can be had."""
    ours = kernels(pack.device.type)
    if ours is None:
        return TrainingWorkspace(pack, n_rows)
    return FusedWorkspace(ours, pack, n_rows)


def _try(ours: ModuleType) -> None:
    """Compiles and runs the kernels on a small pack."""
    pack = PackedMLP([Hyperparameters(hidden_dims=(8,), dropout=0.5)], 1, 2, "cuda")
    space = FusedWorkspace(ours, pack, 1)
    space.noise = [torch.zeros(1, 8, device="cuda")]
    space.activate(0)
    space.differentiate(0)
    moments, steps = torch.zeros_like(pack.parameters), torch.ones((), device="cuda")
    FusedAdamW(ours, pack, (moments, moments), steps, (0.9, 0.999), 1e-8).step()


class FusedWorkspace(TrainingWorkspace):
    """A workspace for training on a GPU whose kernels do all between two products.

    They also add the bias and sum up its gradient: products of 256 rows are faster than of 257.
    """

    bias_by_products = False

    def __init__(self, ours: ModuleType, pack: PackedMLP, n_rows: int) -> None:
        super().__init__(pack, n_rows)
        self._ours = ours
        codes = [_CODES[member.activation] for member in pack.members]
        self._codes = torch.tensor(codes, dtype=torch.int32, device=pack.device)
        pairs = list(zip(pack.factors, pack.products, pack.inputs, strict=True))[:-1]
        self._biases = [weight[:, n_in] for weight, _, n_in in pairs]
        self._bias_gradients = [product[:, n_in] for _, product, n_in in pairs]

    def _new_masks(self) -> list[Tensor]:
        return []  # drawn again from the noise on the way back

    def activate(self, layer: int) -> None:
        """Adds the bias, activates and drops."""
        z, bias, output = self.z[layer], self._biases[layer], self.outputs[layer]
        size, n_rows, width = z.shape
        rows, columns = _tile(width)
        grid = (size, -(-n_rows // rows), -(-width // columns))
        self._ours.activate[grid](
            z,
            bias,
            output,
            self._noise(layer),
            self.pack.keep,
            self._codes,
            n_rows,
            width // 8,
            bias.stride(0) // 8,
            output.stride(1) // 8,
            HAS_DROPOUT=self.pack.has_dropout,
            ROWS=rows,
            COLUMNS=columns,
        )

    def differentiate(self, layer: int) -> None:
        """Goes back through dropout and activation, and sums the bias' gradient up."""
        z, bias = self.z[layer], self._biases[layer]
        size, n_rows, width = z.shape
        rows, columns = _tile(width)
        self._ours.differentiate[size, -(-width // columns)](
            self.gradients[layer],
            z,
            bias,
            self._noise(layer),
            self.pack.keep,
            self._codes,
            self._bias_gradients[layer],
            n_rows,
            width // 8,
            bias.stride(0) // 8,
            HAS_DROPOUT=self.pack.has_dropout,
            ROWS=rows,
            COLUMNS=columns,
        )

    def _noise(self, layer: int) -> Tensor:
        return self.noise[layer] if self.pack.has_dropout else self.pack.keep


def _tile(width: int) -> tuple[int, int]:
    """Returns rows and columns of a tile: one of few shapes, each of which is compiled once."""
    columns = min(COLUMNS, 1 << (width - 1).bit_length())
    return TILE // columns, columns


class FusedAdamW:
    """A step of AdamW for all members in one kernel.

    Args:
        ours: The kernels.
        pack: Whose parameters learn from its gradients.
        moments: The first and the second, flat.
        steps: The number of steps.
        betas: The moments' rates.
        epsilon: Added to the root of the second moment.
    """

    def __init__(
        self,
        ours: ModuleType,
        pack: PackedMLP,
        moments: tuple[Tensor, Tensor],
        steps: Tensor,
        betas: tuple[float, float],
        epsilon: float,
    ) -> None:
        self._kernel, self._betas, self._epsilon = ours.adamw, betas, epsilon
        self._blocks = _blocks(pack).to(pack.device)
        self._arguments = [
            pack.parameters,
            pack.gradients,
            *moments,
            self._blocks,
            pack.column([m.learning_rate for m in pack.members]),
            pack.column([1.0 - m.learning_rate * m.weight_decay for m in pack.members]),
            steps,
        ]

    def step(self) -> None:
        """Takes the step that has been counted."""
        beta1, beta2 = self._betas
        self._kernel[(len(self._blocks),)](
            *self._arguments,
            BETA1=beta1,
            BETA2=beta2,
            LOG_BETA1=math.log(beta1),
            LOG_BETA2=math.log(beta2),
            EPSILON=self._epsilon,
            BLOCK=BLOCK,
        )


def _blocks(pack: PackedMLP) -> Tensor:
    """Divides the flat parameters: first eight, number of eights, member: [programs, 3] int32."""
    parts, offset = [], 0
    for size, n_rows, row in pack.shapes:
        eights = n_rows * row // 8
        starts = torch.arange(0, eights, BLOCK // 8)
        member = torch.arange(size).unsqueeze(1)
        firsts = offset + member * eights + starts
        lengths = (eights - starts).clamp_max(BLOCK // 8)
        parts.append(torch.stack(torch.broadcast_tensors(firsts, lengths, member), 2).view(-1, 3))
        offset += size * eights
    return torch.cat(parts).to(torch.int32)
