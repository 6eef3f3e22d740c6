"""Ports of one job, where others listen too."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from itertools import pairwise

import pytest

from mlops.errors import InputError
from mlops.serving.ingress.ports import BLOCK, PORTS, free_block, is_free

AMONG = range(32_050, 32_650)  # not where jobs of ours listen, nor Ray


def listen_at(stack: ExitStack, ports: list[int]) -> set[int]:
    """Listens at those that are free, so that all of them are taken."""
    for port in ports:
        if is_free(port):
            taken = stack.enter_context(socket.socket())
            taken.bind(("127.0.0.1", port))
            taken.listen()
    return set(ports)


@pytest.mark.parametrize(
    ("every", "replicas", "at_least"),
    [
        (101, 1, BLOCK),  # the rows between are just long enough
        (151, 1, BLOCK),
        (151, 20, BLOCK),
        (151, 28, 140),
        (151, 60, 150),  # not five ports a replica, but enough
        (60, 40, 59),
        (200, 150, 199),
    ],
)
def test_a_row_between_ports_that_are_taken_is_found(
    every: int, replicas: int, at_least: int
) -> None:
    with ExitStack() as stack:
        taken = listen_at(stack, list(AMONG[::every]))
        for _ in range(20):
            block = free_block(replicas, AMONG)
            assert len(block) == at_least
            assert not taken.intersection(block)
            assert set(block) <= set(AMONG)
            assert len(block) > replicas


def test_wherever_others_listen() -> None:
    draw = random.Random(0)
    for _ in range(20):
        with ExitStack() as stack:
            taken = listen_at(stack, draw.sample(AMONG, draw.randrange(40)))
            replicas = draw.randrange(1, 30)
            try:
                block = free_block(replicas, AMONG)
            except InputError:
                edges = sorted({AMONG.start - 1, *taken, AMONG.stop})
                gaps = [b - a - 1 for a, b in pairwise(edges)]
                assert max(gaps) <= replicas
            else:
                assert not taken.intersection(block)
                assert len(block) > replicas


def test_too_few_in_a_row_are_told() -> None:
    with ExitStack() as stack:
        listen_at(stack, list(AMONG[::30]))
        with pytest.raises(InputError, match=r"30 must have as many free ports .* got 29; lower"):
            free_block(30, AMONG)


def test_more_replicas_than_any_machine_has_are_left_to_the_cluster_to_refuse() -> None:
    """It says what it has; the ports of a machine on which others listen said less."""
    with ExitStack() as stack:
        listen_at(stack, [23_000, 26_000, 29_000])
        block = free_block(9_999)
    assert set(block) <= set(PORTS)
