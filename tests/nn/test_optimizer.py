"""The packed optimizer is `torch.optim.AdamW`, member by member."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nn_harness import padding

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.mlp import MLP
from mlops.nn.optimizer import PackedAdamW
from mlops.nn.packed import PackedMLP

MEMBERS = [
    Hyperparameters(hidden_dims=(4, 3), learning_rate=1e-3, weight_decay=1e-4),
    Hyperparameters(hidden_dims=(2, 5), learning_rate=1e-1, weight_decay=0.0),
    Hyperparameters(hidden_dims=(6, 6), learning_rate=1e-5, weight_decay=10.0),
    Hyperparameters(hidden_dims=(1, 1), learning_rate=3e-2, weight_decay=1.0),
]


class Members:
    """A pack beside plain perceptrons with optimizers of their own, given the same gradients."""

    def __init__(self, members: Sequence[Hyperparameters]) -> None:
        self.generator = torch.Generator().manual_seed(5)
        self.pack = PackedMLP(members, 3, 2)
        self.optimizer = PackedAdamW(self.pack)
        self.padded = padding(self.pack)
        self.alone = []
        for k, member in enumerate(members):
            mlp = MLP(3, 2, member.hidden_dims).reset(self.generator)
            self.pack.load_member(k, mlp)
            self.alone.append((mlp, self.plain(mlp, member)))

    @staticmethod
    def plain(mlp: MLP, member: Hyperparameters) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            mlp.parameters(), lr=member.learning_rate, weight_decay=member.weight_decay
        )

    def step(self) -> None:
        # Gradients of very different sizes, some exactly zero, zero in the padding.
        shape = self.pack.gradients.shape
        sizes = 10.0 ** torch.empty(shape).uniform_(-6, 2, generator=self.generator)
        draw = torch.randn(shape, generator=self.generator) * sizes
        draw[torch.rand(shape, generator=self.generator) < 0.1] = 0.0
        self.pack.gradients.copy_(draw.masked_fill(self.padded, 0.0))
        for k, (mlp, optimizer) in enumerate(self.alone):
            gradients = self.pack.member_weights(k, self.pack.gradients)
            for name, parameter in mlp.named_parameters():
                parameter.grad = gradients[name]
            optimizer.step()
        self.optimizer.step()

    def assert_equal(self, rtol: float = 2e-5) -> None:
        for k, (mlp, _) in enumerate(self.alone):
            actual = self.pack.member_weights(k)
            for name, tensor in mlp.state_dict().items():
                torch.testing.assert_close(actual[name], tensor, rtol=rtol, atol=1e-6)
        for flat in (
            self.pack.parameters,
            self.optimizer.first_moment,
            self.optimizer.second_moment,
        ):
            assert (flat[self.padded] == 0).all()


@pytest.fixture(
    params=[(0, 1), (10**9, 1), (10**9, 5)], ids=["a call each", "one call", "one call in parts"]
)
def large_member(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests all ways of calling the kernel, whatever the members' size and the device."""
    large_member, parts = request.param
    monkeypatch.setattr("mlops.nn.optimizer.LARGE_MEMBER", large_member)
    monkeypatch.setattr("mlops.nn.optimizer.PARTS", {"cpu": parts})


def test_steps_equal_adamw_member_by_member(large_member: None) -> None:
    members = Members(MEMBERS)
    for _ in range(150):
        members.step()
    members.assert_equal()


def test_a_selection_goes_on_as_if_nothing_happened(large_member: None) -> None:
    members = Members(MEMBERS)
    for _ in range(20):
        members.step()
    for keep in ([0, 2, 3], [1, 2], [1]):
        smaller = members.pack.select(keep)
        members.optimizer.select(keep, smaller)
        members.pack, members.padded = smaller, padding(smaller)
        members.alone = [members.alone[k] for k in keep]
        for _ in range(20):
            members.step()
        members.assert_equal()


@settings(max_examples=30, deadline=None)
@given(
    rates=st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=5),
    decay=st.floats(0.0, 10.0),
)
def test_any_rate_and_decay_equals_adamw(rates: list[float], decay: float) -> None:
    members = Members(
        [Hyperparameters(hidden_dims=(2,), learning_rate=r, weight_decay=decay) for r in rates]
    )
    for _ in range(5):
        members.step()
    members.assert_equal(rtol=1e-4)


def test_a_member_with_nan_gradients_leaves_the_others_alone(large_member: None) -> None:
    clean, dirty = Members(MEMBERS), Members(MEMBERS)
    for _ in range(5):
        clean.step()
        dirty.step()
        for layer in dirty.pack.by_layer(dirty.pack.parameters):
            layer[1] = float("nan")
    for k in (0, 2, 3):
        left, right = clean.pack.member_weights(k), dirty.pack.member_weights(k)
        assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_without_gradient_only_decay_acts(decay: float) -> None:
    member = Hyperparameters(hidden_dims=(3,), learning_rate=0.1, weight_decay=decay)
    pack = PackedMLP([member], 2, 2)
    pack.parameters.fill_(1.0)
    optimizer = PackedAdamW(pack)
    optimizer.step()
    for tensor in pack.member_weights(0).values():
        torch.testing.assert_close(tensor, torch.full_like(tensor, 1 - 0.1 * decay))
