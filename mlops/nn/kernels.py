"""Kernels for a GPU, in Triton; imported by `mlops.nn.fused` alone, and only where there is one.

Widths and rows of a pack's tensors are multiples of eight elements on a GPU. They are given in
eights, so that the compiler knows it and moves 16 bytes at a time.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _activation(z, code):
    # Comparisons and products pass on what is not a number, as maxima would not.
    if code == 0:
        h = tl.where(z < 0.0, 0.0, z)
    elif code == 1:
        h = 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))
    elif code == 2:
        h = z * tl.sigmoid(z)
    else:
        h = 2.0 * tl.sigmoid(2.0 * z) - 1.0
    return h


@triton.jit
def _gradient(g, z, code):
    if code == 0:
        g = tl.where(z <= 0.0, 0.0, g)
    elif code == 1:
        cdf = 0.5 * (1.0 + tl.erf(z * 0.7071067811865476))
        g = g * (cdf + z * tl.exp(-0.5 * z * z) * 0.3989422804014327)
    elif code == 2:
        s = tl.sigmoid(z)
        g = g * (s * (1.0 + z * (1.0 - s)))
    else:
        t = 2.0 * tl.sigmoid(2.0 * z) - 1.0
        g = g * (1.0 - t * t)
    return g


@triton.jit(do_not_specialize=["n_rows", "eights", "bias_eights", "row_eights"])
def activate(
    z,  # [K, B, W], without bias
    bias,  # [K, W], a row of a layer's weights
    h,  # [K, B, W], in longer rows
    noise,  # [B, W] float32
    keep,  # [K] float32
    codes,  # [K] int32
    n_rows,
    eights,  # W / 8
    bias_eights,  # from one member's bias to the next's
    row_eights,  # from one row of h to the next
    HAS_DROPOUT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Writes the activation of z + bias, and drops units of it."""
    member = tl.program_id(0).to(tl.int64)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    width = eights * 8
    there = (rows < n_rows) & (columns < width)
    first = member * n_rows
    value = tl.load(z + first * width + rows * width + columns, there, 0.0).to(tl.float32)
    value += tl.load(bias + member * bias_eights * 8 + columns, columns < width, 0.0).to(tl.float32)
    value = _activation(value, tl.load(codes + member))
    if HAS_DROPOUT:
        kept = tl.load(keep + member)
        drawn = tl.load(noise + rows * width + columns, there, 1.0)
        value *= tl.where(drawn < kept, 1.0 / kept, 0.0)
    row = row_eights * 8
    tl.store(h + first * row + rows * row + columns, value, there)


@triton.jit(do_not_specialize=["n_rows", "eights", "bias_eights"])
def differentiate(
    g,  # [K, B, W]
    z,
    bias,
    noise,
    keep,
    codes,
    bias_gradient,  # [K, W], laid out as bias
    n_rows,
    eights,
    bias_eights,
    HAS_DROPOUT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Turns the gradient by h into the one by z, in place, and sums it up for the bias."""
    member = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    width = eights * 8
    code = tl.load(codes + member)
    kept = tl.load(keep + member)
    at_bias = member * bias_eights * 8 + columns
    shift = tl.load(bias + at_bias, columns < width, 0.0).to(tl.float32)
    first = member * n_rows * width
    total = tl.zeros([1, COLUMNS], tl.float32)
    for start in range(0, n_rows, ROWS):
        rows = start + tl.arange(0, ROWS)[:, None]
        there = (rows < n_rows) & (columns < width)
        at = rows * width + columns
        gradient = tl.load(g + first + at, there, 0.0).to(tl.float32)
        value = tl.load(z + first + at, there, 0.0).to(tl.float32) + shift
        if HAS_DROPOUT:
            gradient *= tl.where(tl.load(noise + at, there, 1.0) < kept, 1.0 / kept, 0.0)
        gradient = _gradient(gradient, value, code)
        tl.store(g + first + at, gradient, there)
        total += tl.sum(tl.where(there, gradient, 0.0), 0, keep_dims=True)
    tl.store(bias_gradient + at_bias, total, columns < width)


@triton.jit
def adamw(
    parameters,
    gradients,
    first_moments,
    second_moments,
    blocks,  # [programs, 3] int32: first eight, number of eights, member
    rates,  # [K] float32
    shrinks,  # [K] float32: 1 - rate * decay
    steps,  # float32, this one included
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Takes a step of AdamW, each member at its own rate and decay."""
    block = blocks + tl.program_id(0) * 3
    member = tl.load(block + 2)
    elements = tl.arange(0, BLOCK)
    there = elements < tl.load(block + 1) * 8
    at = tl.load(block).to(tl.int64) * 8 + elements
    step = tl.load(steps).to(tl.float64)
    correction1 = (1.0 - tl.exp(step * LOG_BETA1)).to(tl.float32)
    correction2 = tl.sqrt(1.0 - tl.exp(step * LOG_BETA2)).to(tl.float32)
    g = tl.load(gradients + at, there, 0.0)
    m = tl.load(first_moments + at, there, 0.0)
    v = tl.load(second_moments + at, there, 0.0)
    p = tl.load(parameters + at, there, 0.0)
    m += (1.0 - BETA1) * (g - m)
    v = BETA2 * v + (1.0 - BETA2) * g * g
    rate = tl.load(rates + member) / correction1
    p = p * tl.load(shrinks + member) - rate * m / (tl.sqrt(v) / correction2 + EPSILON)
    tl.store(parameters + at, p, there)
    tl.store(first_moments + at, m, there)
    tl.store(second_moments + at, v, there)
