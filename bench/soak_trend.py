"""When a role's memory counts as flat: the rule of `soak.py`, stated before anything is measured.

The first quarter of the time is warm-up. Over the rest, the slope of anonymous memory over clips is
the median of the slopes between all pairs of samples (Theil-Sen: sawtooths of recycling and single
peaks don't move it). A role is flat if the growth that this slope makes over the stretch is at most
5 MiB or 2 % of the role's median, whichever is more. Fewer than 20 samples are no verdict.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from input_memory import RoleMemory
from scipy.stats import theilslopes

WARM_UP_SHARE = 0.25
ALLOWED_MIB, ALLOWED_SHARE = 5.0, 0.02
MIN_SAMPLES = 20


@dataclass(frozen=True)
class Sample:
    """One role at one moment.

    Attributes:
        seconds: Since the worker was started.
        clips: That it had received by then.
        memory: Of the role; the object store's in all three figures.
    """

    seconds: float
    clips: int
    memory: RoleMemory


@dataclass(frozen=True)
class Trend:
    """What became of one role after the warm-up; MiB.

    Attributes:
        role: Whose memory.
        num_processes: Largest number at once.
        median: Of the samples.
        slope: Per 1,000 clips, with its 95 % interval.
        low: Lower end of it.
        high: Upper end of it.
        growth: What the slope makes over the stretch.
        verdict: "flat", "grows" or "too short to say".
    """

    role: str
    num_processes: int
    median: float
    slope: float
    low: float
    high: float
    growth: float
    verdict: str


def compute_trend(role: str, samples: Sequence[Sample], *, seconds: float) -> Trend:
    """Judge one role by the rule above.

    Args:
        role: Its name.
        samples: In order of time.
        seconds: Length of the soak.
    """
    kept = [sample for sample in samples if sample.seconds >= WARM_UP_SHARE * seconds]
    thousands = np.array([sample.clips / 1000 for sample in kept])
    memory = np.array([sample.memory.anonymous for sample in kept])
    num_processes = max((sample.memory.num_processes for sample in kept), default=0)
    if len(kept) < MIN_SAMPLES or np.ptp(thousands) == 0:
        blank = (float("nan"),) * 5
        return Trend(role, num_processes, *blank, "too short to say")
    slope, _, low, high = (float(value) for value in theilslopes(memory, thousands))
    growth = slope * float(np.ptp(thousands))
    median = statistics.median(memory.tolist())
    flat = growth <= max(ALLOWED_MIB, ALLOWED_SHARE * median)
    verdict = "flat" if flat else "grows"
    return Trend(role, num_processes, median, slope, low, high, growth, verdict)
