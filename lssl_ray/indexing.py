"""What `lssl-ray data index` and `data check` do: shared by the command line and the demo."""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from lssl_ray.display import RunDisplay
from lssl_ray.errors import DataError
from lssl_ray.index_report import write_index_report
from lssl_ray.video.checking import CheckReport, Finding, check_manifest
from lssl_ray.video.index import FoundVideo, IndexReport, build_report, index_videos
from lssl_ray.video.index_journal import IndexJournal
from lssl_ray.video.manifest import (
    Manifest,
    OutdatedManifestError,
    VideoRecord,
    load_manifest,
    save_manifest,
)
from lssl_ray.video.probe_files import Prober, ProbeSettings, probe_locally
from lssl_ray.video.readers import ReaderChoice, has_decord

EngineChoice = Literal["auto", "local", "ray"]
MIN_FILES_FOR_RAY = 5000  # below, starting Ray takes longer than it saves
NUM_FINDINGS_SHOWN = 20
NUM_LISTS_SHOWN = 6


def index(
    paths: Sequence[str],
    out: Path,
    *,
    labels: str | Sequence[str],
    split: str | None,
    deadline_seconds: float,
    display: RunDisplay,
    num_workers: int | None = None,
    root: str | None = None,
    exclude: Sequence[str] = (),
    reader: ReaderChoice = "auto",
    engine: EngineChoice = "auto",
    with_report: bool = False,
) -> IndexReport:
    """Probe videos into a manifest; with an existing one, only what is new or changed.

    Raises:
        LsslError: No videos, labels that don't fit, no Ray.
    """
    previous = _load_previous(out, display)
    settings = ProbeSettings(deadline_seconds=deadline_seconds, reader=reader)
    display.show_phase("Looking for videos")
    with IndexJournal(f"{out}.journal") as journal:
        if journal.found:
            display.show_lines(
                f"An interrupted run had probed {len(journal.found)} videos: going on from there"
            )
        manifest, report = index_videos(
            paths,
            labels=labels,
            split=split,
            root=root,
            exclude=exclude,
            reader=reader,
            on_progress=_follow(display),
            previous=previous,
            journal=journal,
            probe=_choose_prober(settings, engine, num_workers, display),
        )
        save_manifest(manifest, str(out))
        journal.remove()
    display.show_lines(*_describe_index(report, out))
    if exclude and not report.num_excluded:
        display.show_lines(f"  {', '.join(exclude)}: excludes none of these videos")
    if with_report:
        display.show_lines(*_write_report(manifest, report, out))
    return report


def check(
    manifest_path: Path,
    *,
    decode: bool,
    out: Path | None,
    deadline_seconds: float,
    display: RunDisplay,
    num_workers: int | None = None,
    engine: EngineChoice = "auto",
) -> CheckReport:
    """Compare a manifest with the files; write the corrected one if asked.

    Raises:
        LsslError: No manifest, a store that can't be asked, no Ray, `out` is something else.
    """
    manifest = load_manifest(str(manifest_path))
    if out is not None:
        with contextlib.suppress(OutdatedManifestError):
            _load_replaceable(out)

    def build_prober(reader: ReaderChoice) -> Prober:
        settings = ProbeSettings(deadline_seconds=deadline_seconds, reader=reader)
        return _choose_prober(settings, engine, num_workers, display)

    display.show_phase(f"Looking for {len(manifest)} videos")
    report, corrected = check_manifest(
        manifest, decode=decode, build_prober=build_prober, on_progress=_follow(display)
    )
    display.show_lines(*_describe_check(report))
    if out is not None:
        save_manifest(corrected, str(out))
        counts = build_report(corrected.table, seconds=report.seconds)
        lines = _write_report(corrected, counts, out)
        display.show_lines(f"Manifest as it should be: {out}", *lines)
    return report


def choose_engine(
    engine: EngineChoice, *, num_files: int, address: str | None
) -> tuple[Literal["local", "ray"], str]:
    """Where files are probed, and why.

    Args:
        engine: What the user asked for.
        num_files: Files to probe.
        address: RAY_ADDRESS, or None.
    """
    if engine != "auto":
        return engine, "as asked"
    if address:
        return "ray", "RAY_ADDRESS is set"
    if num_files >= MIN_FILES_FOR_RAY:
        return "ray", f"{MIN_FILES_FOR_RAY} files or more"
    return "local", f"fewer than {MIN_FILES_FOR_RAY} files and no RAY_ADDRESS"


def _choose_prober(
    settings: ProbeSettings, engine: EngineChoice, num_workers: int | None, display: RunDisplay
) -> Prober:
    """Probes where the number of files says, and tells where that is."""

    def probe(videos: Sequence[FoundVideo]) -> Iterator[tuple[int, VideoRecord]]:
        if not videos:
            return iter(())
        address = os.environ.get("RAY_ADDRESS")
        where, why = choose_engine(engine, num_files=len(videos), address=address)
        display.show_phase(f"Probing {len(videos)} videos")
        if where == "local":
            num_processes = num_workers or len(os.sched_getaffinity(0))
            display.show_lines(f"  with {num_processes} processes on this machine ({why})")
            return probe_locally(videos, settings=settings, num_workers=num_processes)
        from lssl_ray.cluster.index import probe_on_ray

        display.show_lines(f"  on Ray ({why})")
        return probe_on_ray(videos, settings=settings, num_workers=num_workers)

    return probe


def _follow(display: RunDisplay) -> Callable[[int, int, int], None]:
    """Shows progress with the rate since the first probe."""
    first: tuple[int, float] | None = None

    def show(done: int, total: int, bad: int) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = (done, now)
        seconds = now - first[1]
        rate = f"{(done - first[0]) / seconds:.1f} videos/s  " if seconds > 0 else ""
        display.show_count(done, total, f"{rate}{bad} bad")

    return show


def _load_previous(out: Path, display: RunDisplay) -> Manifest | None:
    try:
        return _load_replaceable(out)
    except OutdatedManifestError as error:
        display.show_lines(f"Probing everything anew: {str(error).split('. ')[0]}")
        return None


def _load_replaceable(out: Path) -> Manifest | None:
    """The manifest that is about to be written over, if there is one; other files stay."""
    if not out.exists():
        return None
    try:
        return load_manifest(str(out))
    except OutdatedManifestError:
        raise
    except DataError as error:
        raise DataError(
            f"{out} exists and is no manifest, so it is not written over; choose another --out or "
            f"remove it. ({error})"
        ) from error


def _write_report(manifest: Manifest, report: IndexReport, out: Path) -> list[str]:
    stem = out.with_suffix("") if out.suffix == ".parquet" else out
    page, numbers = write_index_report(manifest, report, stem)
    return [f"Report: {page} (as JSON: {numbers})"]


def _describe_index(report: IndexReport, out: Path) -> list[str]:
    known = f"{report.num_reused} known from before"
    if report.num_resumed:
        known += f", {report.num_resumed} of them from an interrupted run"
    lines = _describe_lists(report.list_formats)
    lines.append(
        f"{report.num_ok} usable and {report.num_bad} bad of {report.num_files} videos in "
        f"{report.seconds:.1f} s ({known})"
    )
    for reason, count in sorted(report.bad_by_reason.items()):
        lines.append(f"  bad: {reason} {count}")
    for name, count in sorted(report.num_by_reader.items()):
        if name != "decord":
            lines.append(f"  read by {name}: {count}")
    if not has_decord():
        lines.append("  decord is not installed here: PyAV reads what decord would have")
    counts = {
        "usable up to a damaged part (column `detail`)": report.num_shortened,
        "bad because a quarantine list names them": report.num_excluded,
        "in a quarantine list, but written since: probed again": report.num_repaired,
        "known from an older release, probed again": report.num_outdated,
        "the same file met again": report.num_duplicates,
        "not there any more, left out": report.num_gone,
        "in no part of their list's split, left out": report.num_unused_rows,
        "without label": report.num_unlabelled,
        "label rows without a video": report.unmatched_label_rows,
    }
    lines += [f"  {text}: {count}" for text, count in counts.items() if count]
    if report.ignored_by_extension:
        ignored = ", ".join(
            f"{extension or 'none'} {count}"
            for extension, count in sorted(report.ignored_by_extension.items())
        )
        lines.append(f"  not video by extension, ignored: {ignored}")
    return [*lines, f"Manifest: {out}"]


def _describe_lists(formats: Mapping[str, str]) -> list[str]:
    if len(formats) <= NUM_LISTS_SHOWN:
        return [f"List: {path}: {name}" for path, name in formats.items()]
    counts = sorted(Counter(formats.values()).items())
    return [f"Lists: {count} in the format {name}" for name, count in counts]


def _describe_check(report: CheckReport) -> list[str]:
    verdict = "all as the manifest says" if report.is_right else "NOT as the manifest says"
    lines = [
        f"{report.num_files} videos, {report.num_probed} of them probed again, in "
        f"{report.seconds:.1f} s: {verdict}"
    ]
    if report.num_excluded:
        lines.append(f"  excluded by a quarantine list, not probed: {report.num_excluded}")
    findings: dict[str, tuple[Finding, ...]] = {
        "missing": report.missing,
        "changed": report.changed,
        "newly bad": report.newly_bad,
        "newly good": report.newly_good,
    }
    for name, found in findings.items():
        lines.append(f"  {name}: {len(found)}")
        shown = found[:NUM_FINDINGS_SHOWN]
        lines += [f"    {finding.path}: {finding.detail}" for finding in shown]
        if len(found) > len(shown):
            lines.append(f"    ... and {len(found) - len(shown)} more")
    return lines
