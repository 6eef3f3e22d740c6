"""The hand-written program against autograd; padding; weights in and out of a pack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nn_harness import (
    FUNCTIONS,
    Table,
    batches,
    initial_mlp,
    logits_with_dropout,
    padding,
)

from mlops.configuration.hyperparameters import ACTIVATIONS, Hyperparameters
from mlops.nn import activations, sizes
from mlops.nn.device.passes import Passes
from mlops.nn.device.rows import Rows
from mlops.nn.device.workspace import Workspace
from mlops.nn.mlp import MLP
from mlops.nn.packed import PackedMLP
from mlops.nn.tasks.classification import Classification

SEED = 11
DIMS = {
    1: [(5,), (9,), (1,)],
    2: [(5, 8), (9, 2), (1, 1)],
    3: [(5, 8, 3), (9, 2, 4), (1, 1, 1)],
}


class Recorder:
    """Stands where the optimizer does and keeps each step's gradients; the weights stay."""

    def __init__(self, pack: PackedMLP) -> None:
        self.pack = pack
        self.gradients: list[torch.Tensor] = []

    def step(self) -> None:
        self.gradients.append(self.pack.gradients.clone())


def loaded_pack(members: list[Hyperparameters], table: Table) -> tuple[PackedMLP, list[MLP]]:
    pack = PackedMLP(members, table.x_train.shape[1], table.n_classes)
    mlps = [initial_mlp(member, table, SEED, k) for k, member in enumerate(members)]
    for k, mlp in enumerate(mlps):
        pack.load_member(k, mlp)
    return pack, mlps


def assert_epoch_equals_autograd(members: list[Hyperparameters], table: Table) -> None:
    """Compares every step's gradients, and the epoch's loss and accuracy, with plain autograd."""
    pack, mlps = loaded_pack(members, table)
    recorder = Recorder(pack)
    epoch = Passes(pack, Rows.on("cpu", *table))
    list(epoch.pieces(recorder, SEED, 1))  # type: ignore[arg-type]
    loss, accuracy = epoch.trained()
    x, y = torch.from_numpy(table.x_train), torch.from_numpy(table.y_train)
    padded = padding(pack)
    assert all((gradient[padded] == 0).all() for gradient in recorder.gradients)
    for k, (member, mlp) in enumerate(zip(members, mlps, strict=True)):
        loss_sum, hits = 0.0, 0
        steps = list(batches(SEED, 1, len(x), member))
        for (rows, noise), gradients in zip(steps, recorder.gradients, strict=True):
            logits = logits_with_dropout(mlp, member, x[rows], noise)
            mlp.zero_grad()
            torch.nn.functional.cross_entropy(
                logits, y[rows], label_smoothing=member.label_smoothing
            ).backward()
            actual = pack.member_weights(k, gradients)
            for name, parameter in mlp.named_parameters():
                torch.testing.assert_close(actual[name], parameter.grad, rtol=2e-5, atol=2e-7)
            loss_sum += torch.nn.functional.cross_entropy(logits, y[rows], reduction="sum").item()
            hits += int((logits.argmax(1) == y[rows]).sum())
        assert loss[k].item() == pytest.approx(loss_sum / len(x), rel=1e-5)
        assert accuracy[k].item() == hits / len(x)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_autograd(
    noisy: Table, activation: str, depth: int, dropout: float
) -> None:
    members = [
        Hyperparameters(
            hidden_dims=dims,
            batch_size=32,
            activation=activation,
            dropout=dropout * (k != 1),
            label_smoothing=0.1 * k,
        )
        for k, dims in enumerate(DIMS[depth])
    ]
    assert_epoch_equals_autograd(members, noisy)


def test_gradients_of_mixed_activations_equal_autograd(noisy: Table) -> None:
    members = [
        Hyperparameters(hidden_dims=(4 + k, 7 - k), activation=name, dropout=0.15 * (k % 3))
        for k, name in enumerate([*ACTIVATIONS, "tanh", "tanh"])
    ]
    assert_epoch_equals_autograd(members, noisy)


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "sizes"),
    [
        (203, 32, [32] * 6 + [11]),
        (203, 203, [203]),
        (203, 1024, [203]),
        (203, 202, [202, 1]),
        (64, 32, [32, 32]),
        (5, 1, [1] * 5),
        (1, 32, [1]),
    ],
)
def test_an_epoch_visits_every_row_once(
    noisy: Table, n_rows: int, batch_size: int, sizes: list[int]
) -> None:
    members = [
        Hyperparameters(hidden_dims=(6, 4), batch_size=batch_size, dropout=0.3),
        Hyperparameters(hidden_dims=(3, 5), batch_size=batch_size, label_smoothing=0.2),
    ]
    steps = list(batches(SEED, 1, n_rows, members[0]))
    assert [len(step.rows) for step in steps] == sizes
    assert sorted(torch.cat([step.rows for step in steps]).tolist()) == list(range(n_rows))
    assert_epoch_equals_autograd(members, noisy.head(n_rows, 5))


@pytest.mark.parametrize("batch_size", [100, 2048, 3000])
def test_tables_of_several_chunks_equal_autograd(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4500, 3, generator=generator).numpy()
    y = torch.randint(0, 2, (4500,), generator=generator).numpy()
    members = [
        Hyperparameters(hidden_dims=(n,), batch_size=batch_size, dropout=0.2) for n in (3, 8)
    ]
    assert_epoch_equals_autograd(members, Table(x, y, x[:9], y[:9], Classification(range(2))))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_torch_and_keep_zero(name: str) -> None:
    z = torch.tensor([-30.0, -2.0, -0.5, 0.0, 0.3, 1.0, 4.0, 30.0], requires_grad=True)
    expected = FUNCTIONS[name](z)
    upstream = torch.linspace(-1.0, 2.0, len(z))
    expected.backward(upstream)
    activation = activations.BY_NAME[name]
    # Every second element: a workspace's buffers are strided too.
    kept, gradient = z.detach().clone(), upstream.clone()
    h = torch.full((2 * len(z),), 7.0)[::2]
    activation.forward(kept, h)
    activation.backward(gradient, kept)
    torch.testing.assert_close(h, expected.detach(), rtol=0, atol=0)
    torch.testing.assert_close(gradient, z.grad, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(activation.function(z.detach()), h, rtol=0, atol=0)
    assert h[3] == 0


def test_every_activation_is_known_to_both_sides() -> None:
    assert set(activations.BY_NAME) == set(ACTIVATIONS)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_weights_survive_the_way_into_a_pack_and_out(noisy: Table, depth: int) -> None:
    members = [Hyperparameters(hidden_dims=dims) for dims in DIMS[depth]]
    pack, mlps = loaded_pack(members, noisy)
    for k, mlp in enumerate(mlps):
        out = pack.member_weights(k)
        assert out.keys() == mlp.state_dict().keys()
        for name, tensor in mlp.state_dict().items():
            assert torch.equal(out[name], tensor)
            assert out[name].is_contiguous()
            assert out[name].untyped_storage().nbytes() == tensor.numel() * 4, "own memory only"


def test_member_weights_are_copies(noisy: Table) -> None:
    pack, _ = loaded_pack([Hyperparameters(hidden_dims=(4,))], noisy)
    out = pack.member_weights(0)
    before = {name: tensor.clone() for name, tensor in out.items()}
    pack.parameters.zero_()
    assert all(torch.equal(out[name], before[name]) for name in out)


@pytest.mark.parametrize("keep", [[0], [2], [0, 2], [1, 2], [0, 1, 2]])
def test_select_keeps_members_and_their_padding(noisy: Table, keep: list[int]) -> None:
    members = [Hyperparameters(hidden_dims=dims, dropout=0.1 * i) for i, dims in enumerate(DIMS[2])]
    pack, _ = loaded_pack(members, noisy)
    smaller = pack.select(keep)
    assert smaller.widths == pack.widths
    assert smaller.members == [members[k] for k in keep]
    for new, old in enumerate(keep):
        expected = pack.member_weights(old)
        actual = smaller.member_weights(new)
        assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert torch.equal(
        smaller.select_flat(smaller.parameters, range(len(keep))), smaller.parameters
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_evaluation_ignores_dropout_and_equals_the_plain_mlp(noisy: Table, activation: str) -> None:
    members = [Hyperparameters(hidden_dims=d, activation=activation, dropout=0.9) for d in DIMS[2]]
    pack, mlps = loaded_pack(members, noisy)
    x = torch.from_numpy(noisy.x_val)
    ones = torch.ones(len(x), 1)
    logits = Workspace(pack, len(x)).forward(torch.cat([x, ones], 1).expand(len(pack), -1, -1))
    for k, mlp in enumerate(mlps):
        torch.testing.assert_close(logits[k], mlp.eval()(x), rtol=1e-5, atol=1e-6)


def test_evaluation_in_pieces_equals_evaluation_at_once(
    noisy: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, _ = loaded_pack([Hyperparameters(hidden_dims=d) for d in DIMS[2]], noisy)
    rows = Rows.on("cpu", *noisy)
    loss, *others = Passes(pack, rows).evaluate()
    monkeypatch.setitem(sizes.PASS_ELEMENTS, "cpu", 1)
    loss_in_pieces, *others_in_pieces = Passes(pack, rows).evaluate()
    assert len(others) == 2
    assert all(map(torch.equal, others, others_in_pieces))
    torch.testing.assert_close(loss, loss_in_pieces, rtol=1e-6, atol=0)


def test_plain_mlp_drops_units_in_train_mode_only() -> None:
    mlp = MLP(4, 2, (64,), dropout=0.5)
    x = torch.randn(16, 4)
    assert torch.equal(mlp.eval()(x), mlp.eval()(x))
    assert not torch.equal(mlp.train()(x), mlp.train()(x))


def test_initial_weights_fill_the_range_of_torch_linear() -> None:
    mlp = MLP(100, 7, (200, 50)).reset(torch.Generator().manual_seed(0))
    for layer in mlp.layers:
        bound = layer.in_features**-0.5
        assert layer.weight.abs().max() <= bound
        assert layer.bias.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.06)


@pytest.mark.parametrize("depth", DIMS)
def test_a_pack_draws_the_weights_that_its_members_draw_alone(depth: int) -> None:
    members = [Hyperparameters(hidden_dims=dims) for dims in DIMS[depth]]
    pack = PackedMLP(members, 3, 2, alignment=4)
    pack.reset([torch.Generator().manual_seed(k) for k in range(len(members))])
    assert (pack.parameters[padding(pack)] == 0).all()
    for k, member in enumerate(members):
        alone = MLP(3, 2, member.hidden_dims).reset(torch.Generator().manual_seed(k))
        generator = torch.Generator().manual_seed(k)
        drawn = pack.member_weights(k)
        for name, tensor in alone.state_dict().items():
            assert torch.equal(drawn[name], tensor)
            if name.endswith("weight"):
                bound = tensor.shape[1] ** -0.5
            assert torch.equal(tensor, tensor.clone().uniform_(-bound, bound, generator=generator))


def test_a_pack_needs_members_of_one_depth() -> None:
    shallow = Hyperparameters(hidden_dims=(4,))
    with pytest.raises(ValueError, match="argument"):
        PackedMLP([shallow, replace(shallow, hidden_dims=(4, 4))], 3, 2)
