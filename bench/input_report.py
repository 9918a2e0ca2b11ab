"""Tables of `input.py` and `soak.py`: markdown for people, JSON for the next script."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class ResultTable:
    """One table.

    Attributes:
        title: What it answers.
        columns: Heads.
        rows: Cells, as shown.
        note: What a reader must know to read it.
        values: The measured numbers behind the cells, by row.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    values: Mapping[str, Sequence[float]]


def format_markdown(table: ResultTable, machine: Mapping[str, str]) -> str:
    """A heading, the circumstances, the table."""
    lines = [f"### {table.title}", "", table.note, ""]
    lines += [f"* {name}: {words}" for name, words in machine.items()]
    lines += ["", _format_row(table.columns), "|" + "---|" * len(table.columns)]
    lines += [_format_row(row) for row in table.rows]
    return "\n".join(lines)


def _format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def format_spread(values: Sequence[float], *, digits: int = 1) -> str:
    """Median, and the range behind it when there is one."""
    median = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return median
    return f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def write_json(path: Path, tables: Sequence[ResultTable], machine: Mapping[str, str]) -> None:
    """All tables with their raw values, under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = {"machine": dict(machine), "tables": [asdict(table) for table in tables]}
    staging.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    os.replace(staging, path)
