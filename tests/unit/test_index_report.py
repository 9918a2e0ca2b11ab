"""The index report: right figures, and a page that no name of a file or label can take over."""

import bisect
import json
import time
from dataclasses import asdict, fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import video_records

from lssl_ray.errors import DataError
from lssl_ray.index_report import write_index_report
from lssl_ray.video.index import IndexReport
from lssl_ray.video.manifest import Manifest, VideoRecord, build_manifest

GOOD = video_records.build_record(
    num_frames=300, fps=30.0, duration_seconds=10.0, width=340, height=256
)
BAD = video_records.build_bad_record()
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; </style></svg><svg onload=alert(2)>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; \u202e \u65e5\u672c <b>",
)


def build_report(**changes: Any) -> IndexReport:
    """What indexing counted besides the rows; all zero but for the changes."""
    values: dict[str, Any] = {field.name: 0 for field in fields(IndexReport)}
    maps = ("bad_by_reason", "num_by_reader", "ignored_by_extension", "list_formats")
    return IndexReport(**(values | {name: {} for name in maps} | changes))


def name(record: VideoRecord, number: int, **changes: Any) -> VideoRecord:
    """The record as another file."""
    return replace(record, video_id=f"{number}.mp4", path=f"/v/{number}.mp4", **changes)


def write(
    folder: Path, records: list[VideoRecord] | Manifest, **changes: Any
) -> tuple[str, dict[str, Any]]:
    """The page and the JSON of a report."""
    manifest = records if isinstance(records, Manifest) else build_manifest(records, root="/v")
    page, data = write_index_report(manifest, build_report(**changes), folder / "mine")
    assert (page, data) == (folder / "mine.report.html", folder / "mine.report.json")
    return page.read_text(encoding="utf-8"), json.loads(data.read_text(encoding="utf-8"))


class Reading(HTMLParser):
    """What a browser would see of a page: elements, their attributes, words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # every element is closed where it was opened

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.fixture
def mixed() -> list[VideoRecord]:
    """Four usable videos (one damaged), 24 bad ones; two labels and a third only of bad ones."""
    good = [name(GOOD, number, label="run") for number in range(3)]
    good.append(name(GOOD, 3, width=1080, height=1920, codec="hevc", reader="pyav", split="test"))
    good[0] = replace(good[0], detail="only 300 of 400 frames decode", label="jump")
    bad = [name(BAD, 100 + number, label="fall") for number in range(23)]
    return [*good, *bad, name(BAD, 200, reason="missing", detail=None)]


def test_report_of_mixed_manifest_holds_the_right_figures(
    mixed: list[VideoRecord], tmp_path: Path
) -> None:
    report = build_report(num_duplicates=5, ignored_by_extension={".txt": 7}, seconds=1.5)
    _, data = write(tmp_path, mixed, **asdict(report))
    assert (data["num_files"], data["num_ok"], data["num_bad"]) == (28, 4, 24)
    assert data["hours"] == pytest.approx(40 / 3600)
    assert (data["num_frames"], data["size_bytes"]) == (1200, 4000)
    assert [(row["reason"], row["count"]) for row in data["problems"]] == [
        ("not_a_video", 23),
        ("missing", 1),
    ]
    examples = data["problems"][0]["examples"]
    assert [row["path"] for row in examples] == [f"/v/{100 + n}.mp4" for n in range(20)]
    assert examples[0]["detail"] == "is empty"
    assert data["shortened"]["count"] == 1
    assert data["shortened"]["examples"][0]["path"] == "/v/0.mp4"
    assert data["codecs"] == {"h264": 3, "hevc": 1}
    assert data["readers"] == {"decord": 3, "pyav": 1}
    assert data["splits"] == {"test": 1}
    assert data["frame_sizes"] == {"340 x 256": 3, "1080 x 1920": 1}
    assert data["histograms"]["short_side"]["values"] == [256, 1080]
    assert data["histograms"]["short_side"]["counts"] == [3, 1]
    assert data["labels"]["num_usable_videos"] == {"run": 2, "jump": 1, "fall": 0}
    assert data["labels"]["num_unlabelled"] == 2
    assert data["indexing"] == asdict(report)


def test_report_page_shows_counts_examples_and_no_more_than_twenty(
    mixed: list[VideoRecord], tmp_path: Path
) -> None:
    page, _ = write(tmp_path, mixed, num_duplicates=5, ignored_by_extension={".txt": 7})
    texts = Reading(page).texts
    for word in ("not_a_video", "missing", "fall", "h264", "pyav", ".txt", "1080 x 1920"):
        assert word in texts
    assert [text for text in texts if text.startswith("/v/1")] == [
        f"/v/{100 + n}.mp4" for n in range(20)
    ]
    assert Reading(page).tags.count("svg") == 4


def test_report_hostile_names_are_texts(tmp_path: Path) -> None:
    records = [
        replace(record, video_id=f"{kind}{n}", path=f"/v/{text}.mp4", label=text, detail=text,
                split=text, codec=text)
        for n, text in enumerate(HOSTILE)
        for kind, record in (("good", GOOD), ("bad", BAD))
    ]  # fmt: skip
    records += [name(BAD, n, reason=text) for n, text in enumerate(HOSTILE)]
    manifest = Manifest(build_manifest(records, root="/").table, root=HOSTILE[0])
    page, data = write(tmp_path, manifest, ignored_by_extension={text: 1 for text in HOSTILE})
    reading = Reading(page)
    for text in HOSTILE:
        assert f"/v/{text}.mp4" in reading.texts
        assert reading.texts.count(text.strip()) >= 6  # label, split, codec, detail, reason, file
        assert data["labels"]["num_usable_videos"][text] == 1
    assert not {"script", "img", "iframe", "object", "link", "base", "form"} & set(reading.tags)
    assert not [key for key, _ in reading.attributes if key.startswith("on")]


def test_report_page_is_one_file_without_scripts_or_addresses(
    mixed: list[VideoRecord], tmp_path: Path
) -> None:
    page, _ = write(tmp_path, mixed)
    reading = Reading(page)
    assert not {"script", "img", "iframe", "object", "link"} & set(reading.tags)
    links = [value for key, value in reading.attributes if key.split(":")[-1] in ("href", "src")]
    assert all(value.startswith("#") for value in links)
    spaces = {value for key, value in reading.attributes if key.startswith("xmlns")}
    for address in spaces:
        page = page.replace(address, "")
    assert "://" not in page and "@import" not in page
    assert page.count("url(") == page.count("url(#")


@pytest.mark.parametrize(
    "records",
    [
        [GOOD],
        [BAD],
        [replace(GOOD, label="only", size_bytes=0, codec="", fps=1.0e-3, duration_seconds=3.0e5)],
        [name(GOOD, n, duration_seconds=float(n), size_bytes=10**n) for n in range(14)],
    ],
    ids=["one-unlabelled", "one-bad", "extremes", "from-zero"],
)
def test_report_of_few_videos_is_whole(records: list[VideoRecord], tmp_path: Path) -> None:
    page, data = write(tmp_path, records)
    num_ok = sum(record.status == "ok" for record in records)
    assert data["num_ok"] == num_ok
    assert Reading(page).tags.count("svg") == (4 if num_ok else 0)
    assert not Reading(page).open


def build_large_manifest(num_rows: int, num_labels: int) -> Manifest:
    """Label 0 has most videos, the last none; a tenth is bad; 1 in 100 has no label."""
    rng = np.random.default_rng(0)
    labels = np.minimum(rng.geometric(8.0 / num_labels, num_rows) - 1, num_labels - 2)
    names = [f"label {number:04d}" for number in labels]
    names[0] = f"label {num_labels - 1:04d}"
    columns = {
        column.name: pa.repeat(pa.scalar(getattr(GOOD, column.name), column.type), num_rows)
        for column in build_manifest([GOOD], root="/").table.schema
    }
    ids = [f"{number}.mp4" for number in range(num_rows)]
    is_bad = np.arange(num_rows) % 10 == 0
    columns |= {
        "video_id": pa.array(ids),
        "path": pa.array(ids),
        "label": pa.array(names, mask=np.arange(num_rows) % 100 == 5),
        "status": pa.array(np.where(is_bad, "bad", "ok")),
        "reason": pa.array(["missing"] * num_rows, mask=~is_bad),
        "duration_seconds": pa.array(rng.lognormal(2.3, 1.2, num_rows)),
    }
    return Manifest(table=pa.table(columns), root="/v")


def test_report_of_a_hundred_thousand_rows_is_quick_small_and_right(tmp_path: Path) -> None:
    manifest = build_large_manifest(100_000, num_labels=1000)
    started = time.monotonic()
    page, data = write(tmp_path, manifest)
    assert time.monotonic() - started < 20.0  # 1 s on an idle core; row by row it took minutes
    assert len(page) < 200_000
    assert (data["num_ok"], data["num_bad"]) == (90_000, 10_000)
    assert data["labels"]["num_unlabelled"] == 1000
    counts = data["labels"]["num_usable_videos"]
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert counts["label 0999"] == 0
    shown = [text for text in Reading(page).texts if text.startswith("label ")]
    assert shown == [*list(counts)[:15], *list(counts)[-15:]]

    histogram = data["histograms"]["duration_seconds"]
    edges, expected = histogram["edges"], [0] * (len(histogram["edges"]) - 1)
    usable = manifest.usable().table["duration_seconds"].to_pylist()
    for value in usable:
        expected[min(bisect.bisect_right(edges, value), len(expected)) - 1] += 1
    assert histogram["counts"] == expected
    assert (histogram["scale"], edges[0], edges[-1]) == ("log", min(usable), max(usable))
    assert histogram["median"] == pytest.approx(sorted(usable)[45_000], rel=1e-3)


def test_report_that_cannot_be_written_raises_and_leaves_no_pieces(tmp_path: Path) -> None:
    (tmp_path / "mine.report.json").mkdir()
    with pytest.raises(DataError, match=r"mine\.report\.json"):
        write(tmp_path, [GOOD])
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.report.html", "mine.report.json"}
    with pytest.raises(DataError, match=r"no_folder"):
        write(tmp_path / "mine.report.html" / "no_folder", [GOOD])
