"""What a study can be judged by; needs nothing, since whoever names a metric reads this."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """A measure of a model on some rows.

    Attributes:
        name: Such as `accuracy`; on the validation part it is called `val_accuracy`.
        mode: "max" or "min": which is better.
        worst: What a searcher is told of a trial that has none.
    """

    name: str
    mode: str
    worst: float

    def is_better(self, value: float, other: float) -> bool:
        """Tells whether a value is better than another; NaN is never better."""
        return value > other if self.mode == "max" else value < other

    def reaches(self, value: float, target: float) -> bool:
        """Tells whether a value is as good as a target."""
        return value >= target if self.mode == "max" else value <= target

    def ascending(self, value: float) -> float:
        """Returns what sorts the better first."""
        return -value if self.mode == "max" else value


OF_CLASSES = (Metric("accuracy", "max", 0.0), Metric("f1", "max", 0.0), Metric("loss", "min", 1e6))

METRICS = {f"val_{metric.name}": metric for metric in OF_CLASSES}
"""What a study can optimize, by its name on the validation part."""
