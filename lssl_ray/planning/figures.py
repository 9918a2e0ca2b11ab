"""A number that says how far to trust it: its range, and whether somebody measured it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Source = Literal["measured", "computed", "assumed"]


@dataclass(frozen=True)
class Figure:
    """A number of a plan.

    Attributes:
        value: The most likely one.
        low: Least that is to be expected.
        high: Most that is to be expected.
        source: `measured` in this call or in a table of docs/, `computed` from others, or
            `assumed`: given by the user, or typical of hardware.
        note: Where or how, in a line.
    """

    value: float
    low: float
    high: float
    source: Source
    note: str = ""

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.note}: {self.low} <= {self.value} <= {self.high} is not so.")


def assume(value: float, note: str) -> Figure:
    """A figure without a range: the user's own, or typical of hardware."""
    return Figure(value, value, value, "assumed", note)


def count(value: float, note: str) -> Figure:
    """A figure that follows from the recipe exactly."""
    return Figure(value, value, value, "computed", note)


def summarise_mean(values: Sequence[float], note: str) -> Figure:
    """The mean of single measurements, within two standard errors; one alone has no range.

    Where two errors would reach zero, as of a few that differ much, the least of them is the end.
    """
    mean = statistics.fmean(values)
    error = 2 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    low = mean - error if mean > error else min(values)
    return Figure(mean, low, mean + error, "measured", note)


def summarise_median(values: Sequence[float], note: str) -> Figure:
    """The median of single measurements, between the least and the largest."""
    return Figure(statistics.median(values), min(values), max(values), "measured", note)
