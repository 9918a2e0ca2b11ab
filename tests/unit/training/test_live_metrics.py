"""Names for Prometheus: one list, from which rows, the dashboard and the page must not differ."""

import json
import re
from pathlib import Path
from typing import Any

import lss_parts
import pytest

from lssl_ray.cluster.live_metrics import FROM_ROWS, LIVE_METRICS, compute_values
from lssl_ray.model.clip import ClipModel
from lssl_ray.training.loop import run_loop
from lssl_ray.training.optimizer import build_optimizer
from lssl_ray.types import Progress

REPOSITORY = Path(__file__).parents[3]
NAMES = {metric.name for metric in LIVE_METRICS}
# Of Prometheus' data model, and its advice: lower case, base units, no suffix of counters.
NAME = re.compile(r"lssl(_[a-z][a-z0-9]*)+")
BASE_UNITS = ("seconds", "bytes", "ratio")
OTHER_UNITS = {"milliseconds", "minutes", "mib", "gib", "kib", "mb", "percent", "share", "total"}
# What a row gets only on Ray; a test with Ray looks for them.
ON_RAY = {"data/store_mib_used", "data/store_mib_spilled", "cluster/nodes_leaving"}


def find_names(text: str) -> set[str]:
    return set(re.findall(r"\bray_(lssl_\w+)", text))


def read_dashboard() -> dict[str, Any]:
    return json.loads((REPOSITORY / "deploy" / "grafana_dashboard.json").read_text())


def test_every_figure_is_in_the_rows_that_training_files(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    task, rows = lss_parts.build_task(tiny_clip), lss_parts.Rows()
    run_loop(
        task,
        build_optimizer(task.student, head=None, betas=(0.9, 0.999)),
        lss_parts.build_schedules(2),
        [lss_parts.draw_batch(3, seed=step, first_position=3 * step) for step in range(2)],
        progress=Progress(),
        settings=lss_parts.build_settings(2, clips_per_step=3),
        context=lss_parts.build_context(tmp_path, rows),
    )
    row = rows.metrics[-1]
    assert {metric.key for metric in FROM_ROWS} - set(row) == ON_RAY
    values = compute_values(row)
    assert (values["lssl_step"], values["lssl_planned_steps"]) == (2, 2)
    assert values["lssl_loss"] == row["loss/total"] and values["lssl_clips_trained"] == 6


def test_values_are_in_the_units_of_their_names() -> None:
    row = {"step": 7, "num_steps": 9, "data/store_mib_spilled": 1.5, "data/wait_share": 0.25}
    assert compute_values(row) == {
        "lssl_step": 7.0,
        "lssl_planned_steps": 9.0,
        "lssl_object_store_spilled_bytes": 1572864.0,
        "lssl_data_wait_ratio": 0.25,
    }


def test_row_of_an_evaluation_sets_nothing() -> None:
    assert compute_values({"step": 7, "validation/test/zero_shot": 0.5}) == {}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_name_keeps_the_rules_of_prometheus(name: str) -> None:
    words = name.split("_")
    assert NAME.fullmatch(name) and not OTHER_UNITS & set(words)
    for unit in BASE_UNITS:
        assert unit not in words or words[-1] == unit


def test_names_are_told_apart() -> None:
    assert len(NAMES) == len(LIVE_METRICS) and all(metric.description for metric in LIVE_METRICS)


def test_dashboard_shows_every_metric_of_the_chosen_run_and_no_other() -> None:
    dashboard = read_dashboard()
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert set().union(*map(find_names, targets)) == NAMES
    for expression in targets:
        assert len(find_names(expression)) <= expression.count('{run=~"$run"}')
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert find_names(variables["run"]["definition"]) <= NAMES
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - {"__all"}
    assert used == set(variables)


def test_panels_of_the_dashboard_lie_beside_each_other() -> None:
    panels = read_dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells


def test_page_says_what_every_metric_means_and_no_other() -> None:
    page = (REPOSITORY / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `ray_(lssl_\w+)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(NAMES)
    assert find_names(page) <= NAMES
