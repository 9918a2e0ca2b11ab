"""The further tables of `input.py` that are rates: isolation, order, workers, decoders.

Each function measures one question and returns its table. Those that need Ray expect none to be
connected: they start their own, as wide as the question asks.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, Protocol

import torch
from input_paths import BareDecoder, Pass
from input_ray import (
    BlockStream,
    WorkerStream,
    connect_ray,
)
from input_report import ResultTable, format_spread
from input_setting import Setting, Work, build_work, count_cores

from lssl_ray.video.pipeline import ClipDecoder


class Way(Protocol):
    """One way from files to batches."""

    name: str

    def run(self) -> Pass:
        """One pass over the setting's clips."""

    def close(self) -> None:
        """Give back what is held between passes."""


def run_interleaved(
    ways: Sequence[Way], *, passes: int, report: Callable[[str], None]
) -> list[list[Pass]]:
    """Passes of each way, in turns, so that all meet the same machine."""
    results: list[list[Pass]] = [[] for _ in ways]
    for number in range(passes):
        for way, result in zip(ways, results, strict=True):
            report(f"pass {number + 1} of {passes}: {way.name}")
            result.append(way.run())
    return results


def compute_rates(passes: Sequence[Pass], setting: Setting) -> list[float]:
    """Clips per second of each pass, by the one rule for all ways."""
    group = setting.num_decoders * setting.num_workers
    trim = 2 * group
    return [one.compute_rate(trim=trim, group=group) for one in passes]


def measure_isolation(setting: Setting, *, num_clips: int, passes: int) -> ResultTable:
    """The same clips decoded in this process and through a child, all on one core."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds = pool.submit(_time_isolation, build_work(setting), num_clips, passes).result()
    rates = {name: [len(each) / sum(each) for each in values] for name, values in seconds.items()}
    cost = [
        100 * (sum(b) / sum(a) - 1)
        for a, b in zip(seconds[_INSIDE], seconds[_ISOLATED], strict=True)
    ]
    rows = [
        (_INSIDE, format_spread(rates[_INSIDE]), ""),
        (_ISOLATED, format_spread(rates[_ISOLATED]), format_spread(cost) + " %"),
    ]
    return ResultTable(
        title="Cost of isolation",
        columns=("decoding", "clips/s on one core", "more time than in process"),
        rows=tuple(rows),
        note="Parent and child are bound to one core; each clip is decoded both ways in turn.",
        values=rates,
    )


_INSIDE, _ISOLATED = "in process", "isolated"


def _time_isolation(work: Work, num_clips: int, passes: int) -> dict[str, list[list[float]]]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the child inherits it
    torch.set_num_threads(1)
    settings = work.settings
    bare = BareDecoder(work)
    with ClipDecoder(
        work.manifest, recipe=work.recipe, settings=settings, seed=work.plan.seed
    ) as decoder:
        ways: dict[str, Callable[[Any], Any]] = {_INSIDE: bare.decode, _ISOLATED: decoder.decode}
        visits = work.plan.compute_visits(0, num_clips)
        for way in ways.values():
            way(visits[0])
        seconds: dict[str, list[list[float]]] = {name: [] for name in ways}
        for _ in range(passes):
            for name in ways:
                seconds[name].append([])
            for number, visit in enumerate(visits):
                names = list(ways) if number % 2 else list(ways)[::-1]
                for name in names:
                    started = time.perf_counter()
                    ways[name](visit)
                    seconds[name][-1].append(time.perf_counter() - started)
    return seconds


def measure_order(setting: Setting, *, passes: int, report: Callable[[str], None]) -> ResultTable:
    """Blocks as they come against blocks in the plan's order."""
    ways = {
        "any order (what training can't use)": BlockStream(setting, preserve_order=False),
        "the plan's order": BlockStream(setting),
    }
    with connect_ray(setting):
        results = run_interleaved(list(ways.values()), passes=passes, report=report)
    rates = dict(zip(ways, (compute_rates(each, setting) for each in results), strict=True))
    return _tabulate_growth(
        "Cost of deterministic order", rates, note="Ray pipeline without a consumer."
    )


def measure_workers(setting: Setting, *, passes: int, report: Callable[[str], None]) -> ResultTable:
    """The same decoders and clips per step shared by one and by two workers."""
    settings = {f"{count} worker(s)": replace(setting, num_workers=count) for count in (1, 2)}
    with connect_ray(settings["2 worker(s)"]):
        results = run_interleaved(
            [WorkerStream(each) for each in settings.values()], passes=passes, report=report
        )
    rates = {
        name: compute_rates(each, settings[name])
        for name, each in zip(settings, results, strict=True)
    }
    return _tabulate_growth(
        "From one to two training workers",
        rates,
        note=f"No-op steps; {setting.num_decoders} decoders and {setting.clips_per_batch} clips "
        "per step over all workers in both rows.",
    )


def measure_decoders(
    setting: Setting, *, passes: int, report: Callable[[str], None]
) -> ResultTable:
    """Fewer and more decode actors than cores."""
    cores = count_cores()
    counts = sorted({max(1, cores // 2), cores, cores + 1, 2 * cores})
    settings = {f"{count} decoders": replace(setting, num_decoders=count) for count in counts}
    with connect_ray(settings[f"{counts[-1]} decoders"]):
        results = run_interleaved(
            [BlockStream(each) for each in settings.values()], passes=passes, report=report
        )
    # One rule for all rows: that of the most decoders.
    widest = settings[f"{counts[-1]} decoders"]
    rates = {
        name: compute_rates(each, widest) for name, each in zip(settings, results, strict=True)
    }
    return _tabulate_growth(
        f"Decode actors on {cores} cores", rates, note="Ray pipeline without a consumer."
    )


def _tabulate_growth(title: str, rates: dict[str, list[float]], *, note: str) -> ResultTable:
    first = statistics.median(next(iter(rates.values())))
    return ResultTable(
        title=title,
        columns=("setting", "clips/s", "of the first row"),
        rows=tuple(
            (name, format_spread(values), f"{statistics.median(values) / first:.2f}")
            for name, values in rates.items()
        ),
        note=note,
        values=rates,
    )
