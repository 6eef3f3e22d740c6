"""Random numbers depend on what they are for, and on nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlops.nn import streams

seeds = st.integers(0, 2**63)


@given(seed=seeds, epoch=st.integers(1, 10**6), width=st.integers(1, 40), extra=st.integers(0, 40))
def test_noise_of_a_unit_does_not_depend_on_padding(
    seed: int, epoch: int, width: int, extra: int
) -> None:
    narrow = streams.dropout_noise(seed, epoch, 0, 0, 13, width)
    wide = streams.dropout_noise(seed, epoch, 0, 0, 13, width + extra)
    assert torch.equal(narrow, wide[:, :width])
    assert narrow.is_contiguous()
    assert narrow.min() >= 0 and narrow.max() < 1


@given(seed=seeds, epoch=st.integers(1, 10**6), n_rows=st.integers(1, 300))
def test_a_shuffle_is_a_permutation_that_can_be_repeated(
    seed: int, epoch: int, n_rows: int
) -> None:
    order = streams.shuffle(seed, epoch, n_rows)
    assert sorted(order.tolist()) == list(range(n_rows))
    assert torch.equal(order, streams.shuffle(seed, epoch, n_rows))


def test_streams_differ_by_each_part_of_their_key() -> None:
    keys = [(0, 1, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0), (0, 1, 2048, 0), (0, 1, 0, 1)]
    drawn = {tuple(streams.dropout_noise(*key, 5, 3).flatten().tolist()) for key in keys}
    assert len(drawn) == len(keys)
    shuffles = {tuple(streams.shuffle(s, e, 50).tolist()) for s in (0, 1) for e in (1, 2)}
    assert len(shuffles) == 4
    first = {streams.initial_weights(s, t).initial_seed() for s in range(9) for t in range(99)}
    assert len(first) == 9 * 99
    # The purposes do not meet either: epoch 3's shuffle is not trial 3's weights.
    assert streams._generator(0, 0, 3).initial_seed() != streams._generator(0, 1, 3).initial_seed()


def test_drawing_leaves_the_global_generators_alone() -> None:
    state = torch.get_rng_state()
    streams.dropout_noise(0, 1, 0, 0, 8, 8)
    streams.shuffle(0, 1, 8)
    assert torch.equal(torch.get_rng_state(), state)


def test_streams_are_the_same_in_every_version() -> None:
    # A study resumed by a later version must go on with the same numbers.
    assert streams.shuffle(0, 1, 8).tolist() == [5, 1, 2, 4, 0, 7, 3, 6]
    noise = streams.dropout_noise(0, 1, 0, 0, 2, 2).flatten().tolist()
    assert noise == pytest.approx([0.516724, 0.64679, 0.00914, 0.874344], abs=1e-6)


def test_noise_is_uniform() -> None:
    noise = streams.dropout_noise(3, 1, 0, 0, 2048, 128)
    for keep in (0.1, 0.5, 0.9, 0.999):
        share = (noise < keep).double().mean().item()
        assert share == pytest.approx(
            keep, abs=4 * (keep * (1 - keep) / noise.numel()) ** 0.5 + 2e-5
        )
    assert abs(torch.corrcoef(noise.T[:32]).fill_diagonal_(0)).max() < 0.12
