"""The main table of `input.py`, every way from files to training in turns; and all by name."""

import statistics
from collections.abc import Callable, Sequence

import torch
from input_footprint import measure_cpu, measure_rows
from input_paths import BareLoop, LocalLoader, Pass, TorchLoader
from input_ray import BlockStream, WorkerStream, connect_ray, run_training
from input_report import ResultTable, format_spread
from input_setting import Setting, build_work
from input_tables import (
    Way,
    compute_rates,
    measure_decoders,
    measure_isolation,
    measure_order,
    measure_workers,
    run_interleaved,
)

ISOLATION_CLIPS = 64  # at most: four ways in turn on one core


def measure(
    name: str,
    setting: Setting,
    *,
    passes: int,
    train_steps: int,
    row_counts: Sequence[int],
    report: Callable[[str], None],
) -> ResultTable:
    """The table of that name; see `input.TABLES`."""
    num_clips = min(ISOLATION_CLIPS, setting.num_batches * setting.clips_per_batch)
    tables: dict[str, Callable[[], ResultTable]] = {
        "input": lambda: measure_input(
            setting, passes=passes, train_steps=train_steps, report=report
        ),
        "isolation": lambda: measure_isolation(setting, num_clips=num_clips, passes=passes),
        "cpu": lambda: measure_cpu(setting, passes=passes, report=report),
        "order": lambda: measure_order(setting, passes=passes, report=report),
        "workers": lambda: measure_workers(setting, passes=passes, report=report),
        "rows": lambda: measure_rows(setting, counts=row_counts, report=report),
        "decoders": lambda: measure_decoders(setting, passes=passes, report=report),
    }
    return tables[name]()


def measure_input(
    setting: Setting, *, passes: int, train_steps: int, report: Callable[[str], None]
) -> ResultTable:
    """The main table: every way's rate, against the limit and against the DataLoader."""
    torch.set_num_threads(1)
    work = build_work(setting)
    ways: list[Way] = [
        BareLoop(work), TorchLoader(work), BlockStream(setting), WorkerStream(setting),
        LocalLoader(work),
    ]  # fmt: skip
    training: dict[str, float] = {}
    with connect_ray(setting) as ray_seconds:
        try:
            results = run_interleaved(ways, passes=passes, report=report)
        finally:
            for way in ways:
                way.close()
        if train_steps:
            report("training")
            training = run_training(setting, num_steps=train_steps)
    rates = {
        way.name: compute_rates(each, setting) for way, each in zip(ways, results, strict=True)
    }
    limit, loader = (statistics.median(rates[kind.name]) for kind in (BareLoop, TorchLoader))
    rows = [
        (
            way.name,
            format_spread(rates[way.name]),
            f"{statistics.median(rates[way.name]) / limit:.2f}",
            f"{statistics.median(rates[way.name]) / loader:.2f}",
            *_format_first_batches(each),
        )
        for way, each in zip(ways, results, strict=True)
    ]
    note = (
        f"Views: {setting.recipe}; {setting.clips_per_batch} clips a batch, {setting.num_batches} "
        f"batches a pass, {passes} passes, {setting.num_decoders} decoding processes; medians, "
        f"ranges in brackets; warm page cache. Starting Ray took {ray_seconds:.1f} s more, once."
    )
    if training:
        rate, share = training["clips_per_second"], training["wait_share"]
        rows.append(("ours on Ray, real training", f"{rate:.1f}", "", "", "", ""))
        note += (
            f" Real training ({train_steps} steps of a two-layer CLIP on the same cores) waited "
            f"for data {100 * share:.0f} % of its time; its session took "
            f"{training['outside_loop_seconds']:.1f} s besides the steps."
        )
    return ResultTable(
        title="From files to training",
        columns=(
            "way", "clips/s", "of the limit", "of the DataLoader", "first batch, s",
            "in later passes, s",
        ),
        rows=tuple(rows),
        note=note,
        values={**rates, **{f"training {key}": [value] for key, value in training.items()}},
    )  # fmt: skip


def _format_first_batches(passes: list[Pass]) -> tuple[str, str]:
    seconds = [one.first_batch_seconds for one in passes]
    return f"{seconds[0]:.1f}", f"{statistics.median(seconds[1:]):.1f}" if seconds[1:] else ""
