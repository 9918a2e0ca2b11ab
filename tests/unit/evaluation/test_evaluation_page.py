"""The report files: whole, self-contained, inert to strangers, for few and many classes."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluation_samples import build_outcomes, build_report, build_setting
from PIL import Image

from lssl_ray.errors import DataError
from lssl_ray.evaluation.protocols import run_protocol
from lssl_ray.evaluation_page import write_evaluation_report

EVIL = "<script>alert(1)</script>|`x`"


class Page(HTMLParser):
    """Tags, texts and every address that a page would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.addresses: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_has_the_headline_in_all_three_files(tmp_path: Path) -> None:
    setting = build_setting()
    outcomes = build_outcomes(setting)
    report = build_report(setting, outcomes)
    page, text, data = write_evaluation_report(report, outcomes, tmp_path / "out")
    assert json.loads(data.read_text()) == json.loads(json.dumps(report))
    parsed, markdown = Page(page), text.read_text()
    # CLIP right on 2 of 5, the adapted model on all, one video excluded.
    for part in ("40.0", "100.0", "+60.0", "33.3", "83.3", "k-NN, k = 5", "17.mp4"):
        assert part in parsed.text and part in markdown, part
    assert report["command"] in parsed.text and report["command"] in markdown
    with Image.open(tmp_path / "out" / "confusion_zero_shot_adapted.png") as picture:
        assert picture.getextrema() != ((255, 255),) * 3


def test_report_page_loads_nothing_from_outside(tmp_path: Path) -> None:
    setting = build_setting()
    outcomes = build_outcomes(setting)
    points = [
        {"alpha": step / 10, "top1_percent": 40 + step, "low_percent": 30, "high_percent": 60}
        for step in range(11)
    ]
    sweep = {"warning": "not on test videos", "set": "val", "videos": 5, "points": points}
    report = build_report(setting, outcomes, sweep=sweep)
    page, text, _ = write_evaluation_report(report, outcomes, tmp_path)
    parsed = Page(page)
    assert parsed.addresses
    inside = ("data:image/png;base64,", "#")
    assert all(address.startswith(inside) for address in parsed.addresses)
    assert "script" not in parsed.tags and "link" not in parsed.tags
    assert not re.search(r"url\((?!#)", page.read_text())
    assert parsed.tags.count("svg") == 2  # all protocols, and the curve
    assert "not on test videos" in parsed.text and "not on test videos" in text.read_text()


def test_report_names_of_strangers_stay_text(tmp_path: Path) -> None:
    setting = build_setting(labels=("a", "b", EVIL))
    outcomes = build_outcomes(setting)
    report = build_report(setting, outcomes)
    report["excluded_undecodable"]["videos"][0]["path"] = EVIL
    report["excluded_undecodable"]["videos"][0]["video_id"] = EVIL
    report["model"]["title"] = EVIL
    page, text, _ = write_evaluation_report(report, outcomes, tmp_path)
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert parsed.text.count(EVIL) >= 3
    for line in text.read_text().splitlines():
        assert "<script>" not in line.replace("\\<", "")


@pytest.mark.parametrize("num_labels", [2, 40])
def test_report_shows_all_classes_or_both_ends(tmp_path: Path, num_labels: int) -> None:
    setting = build_setting(labels=tuple(f"label {index:02}" for index in range(num_labels)))
    outcomes = list(run_protocol("zero_shot", setting))
    page, _, _ = write_evaluation_report(build_report(setting, outcomes), outcomes, tmp_path)
    shown = {name for name in setting.target.labels if f">{name}</th>" in page.read_text()}
    assert len(shown) == min(num_labels, 30)
    assert "label 00" in shown  # CLIP's only strong class has lost, or stayed


def test_report_of_one_model_has_no_comparison(tmp_path: Path) -> None:
    setting = build_setting()
    plain = {"clip": setting.features["clip"]}
    setting = type(setting)(**{**vars(setting), "features": plain})
    outcomes = build_outcomes(setting)
    report = build_report(setting, outcomes)
    report["model"] |= {"checkpoint": None, "alpha": None, "digests": {"clip": "2" * 64}}
    page, text, _ = write_evaluation_report(report, outcomes, tmp_path)
    assert "McNemar" not in text.read_text().split("\n")[6]
    assert "40.0" in Page(page).text
    assert "adapted" not in Page(page).text


def test_report_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    setting = build_setting()
    outcomes = build_outcomes(setting)
    with pytest.raises(DataError, match="--out"):
        write_evaluation_report(build_report(setting, outcomes), outcomes, tmp_path / "taken")
