"""Findings: what was looked at, what was found there, what to do about it; and their report.

Not here: looking (`facts`, `folders`, `decoding`), judging (`machines`, `nodes`, `gpus`).
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from lssl_ray import __version__
from lssl_ray.errors import LsslError

REPORT_VERSION = 1
Status = Literal["ok", "warning", "problem", "skipped"]
STATUSES: tuple[Status, ...] = ("ok", "warning", "problem", "skipped")
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}

# What a check itself may stumble over; it is then a finding, and the others go on.
STUMBLES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: Of the check; the same in every report.
        status: `ok`, `warning` (a run starts), `problem` (it doesn't, or not as it should), or
            `skipped`.
        found: What is there, or why nothing was looked at.
        remedy: What to do about it; None when nothing is to do, or when `found` says it.
    """

    name: str
    status: Status
    found: str
    remedy: str | None = None


@dataclass(frozen=True)
class Report:
    """What all checks found.

    Attributes:
        findings: In the order of the checks.
        seconds: That they took.
    """

    findings: tuple[Finding, ...]
    seconds: float

    @property
    def has_problem(self) -> bool:
        """Whether anything must be mended before a run."""
        return any(finding.status == "problem" for finding in self.findings)

    @property
    def counts(self) -> dict[Status, int]:
        """How many findings have each status."""
        counted = Counter(finding.status for finding in self.findings)
        return {status: counted[status] for status in STATUSES}

    def to_json(self) -> dict[str, Any]:
        """Plain data; `findings` is a list of name, status, found, remedy."""
        return {
            "version": REPORT_VERSION,
            "lssl_ray": __version__,
            "seconds": round(self.seconds, 1),
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def to_table(self) -> Table:
        """For a terminal of 80 columns or more."""
        table = Table(show_lines=False, pad_edge=False)
        for title in ("", "check", "found, and what to do"):
            table.add_column(title, overflow="fold")
        for finding in self.findings:
            told = Text(finding.found)
            if finding.remedy is not None:
                told.append(f"\n-> {finding.remedy}", style="bold")
            status = Text(finding.status, style=_STYLES[finding.status])
            table.add_row(status, Text(finding.name), told)
        return table


class CheckUp:
    """Runs checks one after the other; one that fails is a finding as well."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.findings: list[Finding] = []

    def run(self, name: str, check: Callable[[], Finding | Iterable[Finding]]) -> bool:
        """Run a check and keep what it finds.

        Returns:
            Whether it ran to its end without finding a problem.
        """
        found = run_check(name, check)
        self.findings += found
        return all(finding.status != "problem" for finding in found)

    def skip(self, reason: str, *names: str) -> None:
        """Say why checks were not run."""
        self.findings += [Finding(name, "skipped", reason) for name in names]

    def report(self) -> Report:
        """All that was found until now."""
        return Report(tuple(self.findings), seconds=time.monotonic() - self._started)


def count_of(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def run_check(name: str, check: Callable[[], Finding | Iterable[Finding]]) -> Sequence[Finding]:
    """What a check finds, its own failure included.

    Args:
        name: Of the check, for its failure.
        check: Refusals of ours are a problem, with their message.
    """
    try:
        found = check()
        return [found] if isinstance(found, Finding) else list(found)
    except LsslError as error:
        return [Finding(name, "problem", str(error))]
    except STUMBLES as error:
        words = (str(error).strip() or "without a message").splitlines()[-1]
        return [
            Finding(
                name,
                "problem",
                f"the check itself failed: {type(error).__name__}: {words}",
                "the other checks are not affected; if nothing explains it, report it as a bug",
            )
        ]
