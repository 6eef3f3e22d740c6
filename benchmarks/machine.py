"""Describe the machine and the library versions that a figure belongs to."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "ray", "mlflow", "hyperopt", "optuna", "numpy", "pandas", "scikit-learn")


def describe() -> dict[str, str]:
    """Collect date, processor, cores, memory, operating system and versions."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu_model(),
        "cores": str(usable_cores()),
        "memory": f"{memory_bytes() / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: package_version(package) for package in PACKAGES},
    }


def one_line(machine: dict[str, str]) -> str:
    """Write a description as a line of prose."""
    versions = ", ".join(f"{package} {machine[package]}" for package in PACKAGES)
    return (
        f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores, {machine['memory']}, "
        f"{machine['system']}; Python {machine['python']}, {versions}"
    )


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
