"""Measure packed training alone: against a plain loop, against torch.bmm, a GPU against cores.

    python -m benchmarks.pack_speed                                   # one CPU thread
    python -m benchmarks.pack_speed --device cuda --cores 16          # all of it on a GPU machine
    python -m benchmarks.pack_speed --device cuda --precision bf16

Needs torch, numpy and scikit-learn only, so it runs on a GPU machine without Ray or MLflow.

1. Narrow: K trials of widths <= 128 at batch 32 (32 on a CPU, 256 on a GPU), as a pack, against the
   same trials one at a time in a plain torch loop with index batches on the same device. The plain
   loop takes a sample of the trials, since its time is the sum of theirs.
2. With `--cores`, the same pack against the same trials on CPU cores, a pack and a process a core.
3. Wide: widths 256 at batch 256 (K = 4 on a CPU, 256 on a GPU). On a CPU the time of the pack
   against the time that torch.bmm needs for the products of the same epochs alone; their ratio is
   the share of bmm's arithmetic rate, because the arithmetic is the same. On a GPU its rate against
   that of one large batched product in the same precision.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import mean, median
from typing import Any

import torch

from benchmarks import report
from benchmarks.comparators import seed_task
from benchmarks.comparators.seed_task import HIDDEN_DIMS, Data
from benchmarks.report import Row
from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.device.precision import DTYPES, applied
from mlops.nn.records import TrialResult
from mlops.nn.tasks.classification import Classification
from mlops.nn.training import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch threads on the CPU")
    parser.add_argument("--precision", default="float32", choices=list(DTYPES))
    parser.add_argument("--cores", type=int, default=0, help="CPU cores to compare a GPU with")
    parser.add_argument("--members", type=int, default=None, help="K of the narrow pack")
    parser.add_argument("--wide-members", type=int, default=None, help="K of the wide pack")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--plain-trials", type=int, default=8, help="trials the plain loop takes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    on_gpu = args.device != "cpu"
    args.members = args.members or (256 if on_gpu else 32)
    args.wide_members = args.wide_members or (256 if on_gpu else 4)
    details: dict[str, Any] = {}
    rows, details["narrow"] = measure_narrow(args)
    if args.cores:
        row, details["cores"] = measure_cores(args)
        rows.append(row)
    row, details["wide"] = measure_wide(args)
    name = f"pack_speed_{args.device}" + f"_{args.precision}" * (args.precision != "float32")
    title = f"Packed training on {describe_device(args)}, {args.precision}"
    report.finish(name, title, [*rows, row], details, save=not args.no_save)


def measure_narrow(args: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Time a pack of narrow trials and the same trials one at a time, alternating."""
    data = seed_task.load_data()
    data_there = to_device(data, args.device)
    members = narrow_members(args.members, args.epochs)
    stride = max(len(members) // args.plain_trials, 1)
    sample = members[::stride]  # every width in turn, see narrow_members
    # Both must learn as much: a fast loop that trains worse would be no comparison. The first call
    # also brings code and memory into place.
    compared = slice(None, None, max(stride // 4, 1))
    accuracy = {
        "pack": mean(fit_pack(members, data, args.device, args.precision)[compared]),
        "plain": fit_plainly(members[compared], data_there),
    }
    pack, plain, fused = [], [], []
    for _ in range(args.repeats):
        seconds = timed(lambda: fit_pack(members, data, args.device, args.precision))
        pack.append(seconds / len(members))
        plain.append(timed(lambda: fit_plainly(sample, data_there)) / len(sample))
        fused.append(timed(lambda: fit_plainly(sample, data_there, fused=True)) / len(sample))
    per_epoch = 1e3 / args.epochs
    speedup = ratio(plain, pack)
    target = 50.0 if args.device != "cpu" else 8.0
    measure = f"packed training alone, K = {len(members)}, widths <= 128, batch 32, {args.device}"
    measured = (
        f"{speedup:.1f}x ({median(pack) * per_epoch:.2f} ms an epoch and trial against "
        f"{median(plain) * per_epoch:.2f}; mean accuracy {accuracy['pack']:.3f} and "
        f"{accuracy['plain']:.3f})"
    )
    rows = [
        Row(measure, f">= {target:g}x a plain loop", measured, speedup >= target),
        Row("... where the plain loop uses a fused AdamW", "-", f"{ratio(fused, pack):.1f}x"),
    ]
    taken = {"pack": pack, "plain": plain, "plain_fused": fused}
    return rows, {"seconds_per_trial": taken, "mean_best_val_accuracy": accuracy}


def measure_cores(args: argparse.Namespace) -> tuple[Row, dict[str, Any]]:
    """Time a pack on the device and the same trials on CPU cores, alternating."""
    data = seed_task.load_data()
    members = narrow_members(args.members, args.epochs)
    parts = [(members[core :: args.cores], data) for core in range(args.cores)]
    on_device, on_cores = [], []
    with multiprocessing.get_context("spawn").Pool(args.cores) as pool:
        # The first time each process starts.
        pool.starmap(fit_on_core, parts, chunksize=1)
        for _ in range(args.repeats):
            on_device.append(timed(lambda: fit_pack(members, data, args.device, args.precision)))
            on_cores.append(timed(lambda: pool.starmap(fit_on_core, parts, chunksize=1)))
    speedup = ratio(on_cores, on_device)
    measured = f"{speedup:.1f}x ({median(on_device):.2f} s against {median(on_cores):.2f} s)"
    measure = f"the same pack, {args.device}, against packs on {args.cores} CPU cores"
    row = Row(measure, ">= 10x", measured, speedup >= 10.0)
    return row, {"seconds": {"device": on_device, "cores": on_cores}}


def fit_on_core(members: Sequence[Hyperparameters], data: Data) -> list[float]:
    """Train a pack on one core, as a study's worker does."""
    torch.set_num_threads(1)
    return fit_pack(members, data, "cpu", "float32")


def narrow_members(n_members: int, epochs: int) -> list[Hyperparameters]:
    """Make trials of the seed task's widths, all different, at batch 32."""
    # By the sum of digits to the base of their number, so that any stride over the list that is a
    # power of two meets all widths.
    n_widths = len(HIDDEN_DIMS)

    def digits(i: int) -> int:
        return i and i % n_widths + digits(i // n_widths)

    return [
        Hyperparameters(
            hidden_dims=tuple(HIDDEN_DIMS[digits(i) % n_widths]),
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
    n_members, on_gpu = args.wide_members, args.device != "cpu"
    # 5,120 training rows: twenty full batches.
    data = seed_task.load_data(8000, 64, 4)
    epochs = max(args.epochs // 2, 4)
    members = [
        Hyperparameters(
            hidden_dims=(256, 256), batch_size=256, epochs=epochs, dropout=0.1 + 0.1 * i / n_members
        )
        for i in range(n_members)
    ]
    n_steps = math.ceil(len(data.x_train) / 256)
    shapes = step_products(256, data.x_train.shape[1], (256, 256), data.n_classes)
    flops = 2 * n_members * n_steps * sum(m * k * n for m, k, n in shapes)
    pack, products = [], []
    # The first epochs of a pack are not like the others: buffers are made, and graphs on a GPU.
    first = [replace(member, epochs=2) for member in members]
    for _ in range(args.repeats):
        all_epochs = timed(lambda: fit_pack(members, data, args.device, args.precision))
        first_epochs = timed(lambda: fit_pack(first, data, args.device, args.precision))
        pack.append((all_epochs - first_epochs) / (epochs - 2))
        if on_gpu:
            seconds = time_products(8, [(4096, 4096, 4096)], args.device, args.precision)
            products.append(seconds * flops / (2 * 8 * 4096**3))
        else:
            seconds = time_products(n_members, shapes, args.device, args.precision)
            products.append(seconds * n_steps)
    share = ratio(products, pack)
    measured = (
        f"{share:.0%} ({flops / median(pack) / 1e9:.0f} of {flops / median(products) / 1e9:.0f} "
        f"GFLOP/s, K = {n_members})"
    )
    measure = f"packed training, widths 256, batch 256, {args.device}"
    target, of = (0.35, "a large batched product's") if on_gpu else (0.5, "torch.bmm's")
    row = Row(measure, f">= {target:.0%} of {of} rate", measured, share >= target)
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
    n_members: int,
    shapes: Sequence[tuple[int, int, int]],
    device: str,
    precision: str,
    repeats: int = 20,
) -> float:
    """Time the products of one step by torch.bmm into ready memory, in seconds a step."""
    options: Any = {"device": device, "dtype": DTYPES[precision]}
    operands = [
        (
            torch.randn(n_members, m, k, **options),
            torch.randn(n_members, k, n, **options),
            torch.empty(n_members, m, n, **options),
        )
        for m, k, n in shapes
    ]

    def steps(n: int) -> None:
        for _ in range(n):
            for left, right, out in operands:
                torch.bmm(left, right, out=out)

    with applied(precision, torch.device(device)):
        steps(1)
        return timed(lambda: steps(repeats)) / repeats


def fit_pack(
    members: Sequence[Hyperparameters], data: Data, device: str, precision: str
) -> list[float]:
    """Train a pack to its end, taking the data to the device included.

    Returns:
        The members' best validation accuracies.
    """
    n_records, scores = 0, [0.0] * len(members)
    for item in fit(
        members,
        data.x_train.numpy(),
        data.y_train.numpy(),
        data.x_val.numpy(),
        data.y_val.numpy(),
        Classification(range(data.n_classes)),
        seed=0,
        device=device,
        precision=precision,
    ):
        if isinstance(item, TrialResult):
            scores[item.trial] = item.score or 0.0
        else:
            n_records += 1
    expected = sum(member.epochs for member in members)
    if n_records != expected:
        raise RuntimeError(f"the pack must train {expected} epochs, got {n_records}")
    return scores


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
