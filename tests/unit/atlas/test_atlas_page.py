"""The atlas' page: self-contained, inert to strangers, small enough, and drawn by a browser."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from atlas_samples import PICTURE, build_axes, build_facts, build_random_clips

from lssl_ray.atlas.page import PAGE_BYTES, compute_picture_budget, render_page, write_atlas
from lssl_ray.errors import DataError

EVIL = "</script><script>document.title='taken'</script><b>x</b>"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Tags, scripts by type, and every address that a page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.addresses: list[str] = []
        self.scripts: dict[str, str] = {}
        self.policy = ""
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.tags.append(tag)
        self.addresses += [said[name] or "" for name in ("src", "href") if name in said]
        if said.get("http-equiv") == "Content-Security-Policy":
            self.policy = said["content"] or ""
        self._script = (said.get("id") or "code") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._script = None


def build_evil_facts(*, labelled: bool = True) -> dict[str, Any]:
    names = ["archery", EVIL, "diving"]
    labels = [names[row % 3] if labelled else None for row in range(30)]
    facts = build_facts(build_random_clips(30, labels), [build_axes(names)])
    facts["model"]["title"] = facts["videos"]["root"] = EVIL
    facts["excluded_undecodable"]["videos"][0]["path"] = EVIL
    for clip in facts["clips"]:
        clip["id"] = EVIL
    return facts


def dump_dom(path: Path, folder: Path, *, tab: str = "") -> str:
    """What a browser makes of the page, its scripts run and the network absent."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--proxy-server=127.0.0.1:9", f"--user-data-dir={folder / 'browser'}",
            "--virtual-time-budget=4000", "--dump-dom", f"{path.as_uri()}{tab}",
        ],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_page_loads_nothing_and_allows_its_own_script_only(tmp_path: Path) -> None:
    facts = build_evil_facts()
    page, data = write_atlas(facts, [PICTURE] * len(facts["clips"]), tmp_path / "a" / "x.html")
    assert data == tmp_path / "a" / "x.json"
    assert json.loads(data.read_text()) == json.loads(json.dumps(facts))
    parsed = Page(page.read_text())
    assert all(address.startswith("#") for address in parsed.addresses)
    assert "link" not in parsed.tags and not re.search(r"url\(|@import", page.read_text())
    digest = base64.b64encode(hashlib.sha256(parsed.scripts["code"].encode()).digest()).decode()
    assert "default-src 'none'" in parsed.policy
    assert f"script-src 'sha256-{digest}'" in parsed.policy
    assert "http" not in parsed.scripts["code"].replace("http://www.w3.org/2000/svg", "")


def test_page_names_of_strangers_stay_data() -> None:
    facts = build_evil_facts()
    parsed = Page(render_page(facts, [PICTURE] * len(facts["clips"])))
    assert parsed.tags.count("script") == 3 and parsed.tags.count("b") == Page(
        render_page(build_facts(build_random_clips(30, ["a"] * 30), [build_axes(["a", "b"])]), [])
    ).tags.count("b")
    drawn = json.loads(parsed.scripts["facts"])
    assert drawn["names"] == ["archery", EVIL, "diving"]
    assert parsed.text.count(EVIL) >= 3


def test_page_each_picture_is_embedded_once() -> None:
    facts = build_evil_facts()
    pictures = [f"{PICTURE}{number}" for number in range(len(facts["clips"]))]
    text = render_page(facts, pictures)
    assert json.loads(Page(text).scripts["pictures"]) == pictures
    assert all(text.count(f'"{picture}"') == 1 for picture in pictures)


def test_page_of_500_concepts_and_full_pictures_keeps_its_size() -> None:
    names = [f"a person doing '{row}' & <more>" for row in range(500)]
    labels = [names[row % 500] for row in range(2000)]
    facts = build_facts(build_random_clips(2000, labels, 64), [build_axes(names, 64)], num_top=6)
    number = len(facts["clips"])
    budget = compute_picture_budget(facts, num_pictures=number)
    assert budget > 20 * 2**20
    size = len(render_page(facts, ["x" * (budget // number)] * number).encode())
    assert 0.95 * PAGE_BYTES < size <= PAGE_BYTES


def test_page_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="-o"):
        write_atlas(build_evil_facts(), [], tmp_path / "taken" / "atlas.html")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("labelled", [True, False])
def test_page_in_a_browser_draws_every_concept_and_runs_no_strangers_script(
    tmp_path: Path, labelled: bool
) -> None:
    facts = build_evil_facts(labelled=labelled)
    page, _ = write_atlas(facts, [PICTURE] * len(facts["clips"]), tmp_path / "x.html")
    dom = Page(dump_dom(page, tmp_path))
    assert "taken" not in dom.text.partition("Concept atlas")[0].replace(EVIL, "")
    assert dom.tags.count("details") == 1 + 3 + len(facts["confusions"]) + len(facts["close_pairs"])
    assert EVIL in dom.text
    assert ("hits gained" in dom.text) == labelled


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_page_in_a_browser_draws_both_maps(tmp_path: Path) -> None:
    facts = build_evil_facts()
    page, _ = write_atlas(facts, [PICTURE] * len(facts["clips"]), tmp_path / "x.html")
    dom = Page(dump_dom(page, tmp_path, tab="#/map"))
    assert dom.tags.count("svg") == 2
    assert dom.tags.count("circle") == 2 * (30 + 1)  # clips, and the ring around one
    assert dom.tags.count("path") == 2 * 3
