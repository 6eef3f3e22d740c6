"""Measure packed training alone: against a plain loop, and against torch.bmm.

    python -m benchmarks.pack_speed                 # one CPU thread
    python -m benchmarks.pack_speed --device cuda

Needs torch, numpy and scikit-learn only, so it runs on a GPU machine without Ray or MLflow.

1. Narrow: K = 32 trials of widths <= 128 at batch 32, as a pack, against the same trials one at a
   time in a plain torch loop with index batches. The plain loop takes a sample of the trials, since
   its time is the sum of theirs.
2. Wide: widths 256 at batch 256; the time of the pack against the time that torch.bmm needs for
   the products of the same epochs alone. Their ratio is the share of bmm's arithmetic rate, because
   the arithmetic is the same.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import mean, median
from typing import Any

import torch

from benchmarks import report
from benchmarks.comparators import seed_task
from benchmarks.comparators.seed_task import HIDDEN_DIMS, Data
from benchmarks.report import Row
from mlops.hyperparameters import Hyperparameters
from mlops.nn.records import TrialResult
from mlops.nn.training import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch threads on the CPU")
    parser.add_argument("--members", type=int, default=32, help="K of the narrow pack")
    parser.add_argument("--wide-members", type=int, default=None, help="K of the wide pack")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--plain-trials", type=int, default=8, help="trials the plain loop takes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    narrow, narrow_details = measure_narrow(args)
    wide, wide_details = measure_wide(args)
    report.finish(
        f"pack_speed_{args.device}",
        f"Packed training on {describe_device(args)}",
        [*narrow, wide],
        {"narrow": narrow_details, "wide": wide_details},
        save=not args.no_save,
    )


def measure_narrow(args: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Time a pack of narrow trials and the same trials one at a time, alternating."""
    data = seed_task.load_data()
    data_there = to_device(data, args.device)
    members = narrow_members(args.members, args.epochs)
    stride = max(len(members) // args.plain_trials, 1)
    sample = members[::stride]  # every width in turn, see narrow_members
    # Both must learn as much: a fast loop that trains worse would be no comparison. The first call
    # also brings code and memory into place.
    accuracy = {
        "pack": fit_pack(members, data, args.device),
        "plain": fit_plainly(members, data_there),
    }
    pack, plain, fused = [], [], []
    for _ in range(args.repeats):
        pack.append(timed(lambda: fit_pack(members, data, args.device)) / len(members))
        plain.append(timed(lambda: fit_plainly(sample, data_there)) / len(sample))
        fused.append(timed(lambda: fit_plainly(sample, data_there, fused=True)) / len(sample))
    per_epoch = 1e3 / args.epochs
    speedup = ratio(plain, pack)
    measure = f"packed training alone, K = {len(members)}, widths <= 128, batch 32, {args.device}"
    measured = (
        f"{speedup:.1f}x ({median(pack) * per_epoch:.2f} ms an epoch and trial against "
        f"{median(plain) * per_epoch:.2f}; mean accuracy {accuracy['pack']:.3f} and "
        f"{accuracy['plain']:.3f})"
    )
    rows = [
        Row(measure, ">= 8x a plain loop", measured, speedup >= 8.0),
        Row("... where the plain loop uses a fused AdamW", "-", f"{ratio(fused, pack):.1f}x"),
    ]
    seconds = {"pack": pack, "plain": plain, "plain_fused": fused}
    return rows, {"seconds_per_trial": seconds, "mean_best_val_accuracy": accuracy}


def narrow_members(n_members: int, epochs: int) -> list[Hyperparameters]:
    """Make trials of the seed task's widths, all different, at batch 32."""
    # The widths change fastest but one step is left out each round, so that any stride over the
    # list meets all of them.
    n_widths = len(HIDDEN_DIMS)
    return [
        Hyperparameters(
            hidden_dims=tuple(HIDDEN_DIMS[(i + i // n_widths) % n_widths]),
            learning_rate=1e-4 * 100 ** (i / n_members),
            batch_size=32,
            epochs=epochs,
            dropout=0.5 * i / n_members,
            weight_decay=1e-6 * 1e4 ** (i / n_members),
        )
        for i in range(n_members)
    ]


def measure_wide(args: argparse.Namespace) -> tuple[Row, dict[str, Any]]:
    """Time a pack of wide trials and the products of its epochs by torch.bmm, alternating."""
    n_members = args.wide_members or (4 if args.device == "cpu" else 32)
    # 5,120 training rows: twenty full batches.
    data = seed_task.load_data(8000, 64, 4)
    epochs = max(args.epochs // 4, 2)
    members = [
        Hyperparameters(
            hidden_dims=(256, 256), batch_size=256, epochs=epochs, dropout=0.1 + 0.01 * i
        )
        for i in range(n_members)
    ]
    n_steps = math.ceil(len(data.x_train) / 256)
    shapes = step_products(256, data.x_train.shape[1], (256, 256), data.n_classes)
    pack, products = [], []
    for _ in range(args.repeats):
        pack.append(timed(lambda: fit_pack(members, data, args.device)) / epochs)
        products.append(time_products(n_members, shapes, args.device) * n_steps)
    flops = 2 * n_members * n_steps * sum(m * k * n for m, k, n in shapes)
    share = ratio(products, pack)
    measured = (
        f"{share:.0%} ({flops / median(pack) / 1e9:.0f} of {flops / median(products) / 1e9:.0f} "
        f"GFLOP/s, K = {n_members})"
    )
    measure = f"packed training, widths 256, batch 256, {args.device}"
    row = Row(measure, ">= 50% of torch.bmm's rate", measured, share >= 0.5)
    return row, {"seconds_per_epoch": {"pack": pack, "bmm": products}, "flops_per_epoch": flops}


def step_products(
    batch: int, n_features: int, hidden_dims: Sequence[int], n_classes: int
) -> list[tuple[int, int, int]]:
    """List the products [m, k] x [k, n] of one training step of a member as (m, k, n).

    Validation's are left out although a pack does them too, so the share is a little too low.
    """
    widths = [n_features, *hidden_dims, n_classes]
    shapes = []
    for i, (below, above) in enumerate(pairwise(widths)):
        shapes.append((batch, below, above))  # forward
        shapes.append((below, batch, above))  # gradient of the weights
        if i > 0:
            shapes.append((batch, above, below))  # gradient of the layer's input
    return shapes


def time_products(
    n_members: int, shapes: Sequence[tuple[int, int, int]], device: str, repeats: int = 20
) -> float:
    """Time the products of one step by torch.bmm into ready memory, in seconds a step."""
    operands = [
        (
            torch.randn(n_members, m, k, device=device),
            torch.randn(n_members, k, n, device=device),
            torch.empty(n_members, m, n, device=device),
        )
        for m, k, n in shapes
    ]

    def steps(n: int) -> None:
        for _ in range(n):
            for left, right, out in operands:
                torch.bmm(left, right, out=out)

    steps(1)
    return timed(lambda: steps(repeats)) / repeats


def fit_pack(members: Sequence[Hyperparameters], data: Data, device: str) -> float:
    """Train a pack to its end, taking the data to the device included.

    Returns:
        The mean over the members of their best validation accuracy.
    """
    n_records, scores = 0, []
    for item in fit(
        members,
        data.x_train.numpy(),
        data.y_train.numpy(),
        data.x_val.numpy(),
        data.y_val.numpy(),
        data.n_classes,
        seed=0,
        device=device,
    ):
        if isinstance(item, TrialResult):
            scores.append(item.score or 0.0)
        else:
            n_records += 1
    expected = sum(member.epochs for member in members)
    if n_records != expected:
        raise RuntimeError(f"the pack must train {expected} epochs, got {n_records}")
    return mean(scores)


def fit_plainly(members: Sequence[Hyperparameters], data: Data, fused: bool | None = None) -> float:
    """Train members one at a time in the comparators' loop with index batches.

    Returns:
        The mean over the members of their best validation accuracy.
    """
    return mean(
        seed_task.train(
            {
                "hidden_dims": member.hidden_dims,
                "batch_size": member.batch_size,
                "lr": member.learning_rate,
                "dropout": member.dropout,
                "weight_decay": member.weight_decay,
            },
            data,
            seed_task.index_batches,
            on_epoch=lambda epoch, metrics: None,
            epochs=member.epochs,
            fused=fused,
        )
        for member in members
    )


def to_device(data: Data, device: str) -> Data:
    return Data(
        x_train=data.x_train.to(device),
        y_train=data.y_train.to(device),
        x_val=data.x_val.to(device),
        y_val=data.y_val.to(device),
        n_classes=data.n_classes,
    )


def timed(work: Callable[[], Any]) -> float:
    """Time a piece of work in seconds, up to the end of what it queued on a GPU."""
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """Take the median of the ratios of neighbouring runs, which shared the machine's mood."""
    return median(a / b for a, b in zip(seconds, others, strict=True))


def describe_device(args: argparse.Namespace) -> str:
    if args.device == "cpu":
        return f"the CPU, {args.threads} thread{'s' if args.threads > 1 else ''}"
    return torch.cuda.get_device_name(args.device)


if __name__ == "__main__":
    main()
