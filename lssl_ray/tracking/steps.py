"""Which steps of a metric a service has: exact in any order, and small for long runs."""

from collections.abc import Iterable, Sequence


class StepSet:
    """Steps, kept as runs of equal distance: those of a metrics row every n steps are one run.

    Args:
        runs: First step, last step, distance of each run, as `to_json` gave them.
    """

    def __init__(self, runs: Iterable[Sequence[int]] = ()) -> None:
        self._runs = [(int(first), int(last), int(stride)) for first, last, stride in runs]

    def __contains__(self, step: int) -> bool:
        return any(
            first <= step <= last and (step - first) % stride == 0
            for first, last, stride in self._runs
        )

    def add(self, step: int) -> None:
        """Add a step, which may be there already."""
        if step in self:
            return
        first, last, stride = self._runs[-1] if self._runs else (step + 1, step, 1)
        if first == last < step:
            self._runs[-1] = (first, step, step - first)
        elif self._runs and step == last + stride:
            self._runs[-1] = (first, step, stride)
        else:
            self._runs.append((step, step, 1))

    def to_json(self) -> list[list[int]]:
        """What the constructor takes."""
        return [list(run) for run in self._runs]
