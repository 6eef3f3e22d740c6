"""Random numbers that depend on what they are for, never on who shares a pack.

Initial weights come from (study seed, trial number); shuffles and dropout noise from (study seed,
epoch, step) and are shared by all trials: common random numbers, so that trials differ by their
configuration only. All are drawn on the CPU, so that every device sees the same ones.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_INITIAL_WEIGHTS, _SHUFFLE, _NOISE = range(3)


def _generator(*key: int) -> torch.Generator:
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def initial_weights(seed: int, trial: int) -> torch.Generator:
    """Returns the generator of one trial's initial weights."""
    return _generator(seed, _INITIAL_WEIGHTS, trial)


def shuffle(seed: int, epoch: int, n_rows: int) -> Tensor:
    """Returns the order of the rows in one epoch: [n_rows] int64."""
    return torch.randperm(n_rows, generator=_generator(seed, _SHUFFLE, epoch))


def dropout_noise(
    seed: int, epoch: int, first_row: int, layer: int, n_rows: int, width: int
) -> Tensor:
    """Returns uniform noise for one layer's units: [n_rows, width] float32.

    Args:
        seed: The study's seed.
        epoch: The epoch, from 1.
        first_row: Position in the epoch of the first row.
        layer: The hidden layer, from 0.
        n_rows: Rows to draw.
        width: Units to draw.
    """
    draws = dropout_draws(seed, epoch, first_row, layer, n_rows, width)
    return as_noise(draws, torch.empty(n_rows, width))


def dropout_draws(
    seed: int, epoch: int, first_row: int, layer: int, n_rows: int, width: int
) -> Tensor:
    """Draws `dropout_noise`, with the same arguments: [width, n_rows] int16.

    Drawn unit by unit, so that unit i sees the same noise whatever `width` the layer is padded to;
    in steps of 2**-16, four values of each raw word (measured: 2-3x as fast as `torch.rand`).
    """
    key = np.random.SeedSequence((seed, _NOISE, epoch, first_row, layer))
    words = math.ceil(n_rows / 4)
    raw = np.random.SFC64(key).random_raw(width * words)
    return torch.from_numpy(raw.view(np.int16)).view(width, 4 * words)[:, :n_rows]


def as_noise(draws: Tensor, out: Tensor) -> Tensor:
    """Turns draws into noise in 0..1, on any device: [width, B] int16 to `out`, [B, width]."""
    return out.copy_(draws.float().t()).mul_(2.0**-16).add_(0.5)
