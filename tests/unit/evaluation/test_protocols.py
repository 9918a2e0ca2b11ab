"""Protocols on known features: who is scored, what is learnt from, what is counted wrong."""

from dataclasses import replace

import evaluation_samples
import pytest
import torch
from evaluation_samples import build_setting

from lssl_ray.errors import DataError
from lssl_ray.evaluation.protocols import run_protocol
from lssl_ray.evaluation.targets import Division


def test_run_protocol_zero_shot_by_hand() -> None:
    (outcome,) = run_protocol("zero_shot", build_setting())
    (part,) = outcome.parts
    assert part.rows == (4, 5, 10, 11, 16) and part.num_excluded == 1
    assert part.results["clip"].top1 == pytest.approx(2 / 5)
    assert part.results["adapted"].top1 == 1.0
    assert part.counted_wrong("clip") == pytest.approx(2 / 6)
    assert part.counted_wrong("adapted") == pytest.approx(5 / 6)
    said = outcome.to_json()
    assert said["comparison"]["right_only_second"] == 3
    assert said["comparison"]["mcnemar_p"] == pytest.approx(2 * 0.5**3)  # 3 of 3 one way
    assert said["models"]["adapted"]["transductive"] == "vocabulary"
    assert said["models"]["clip"]["transductive"] == "none"
    assert [row["label"] for row in said["class_changes"]][-1] == "a"
    assert said["confused_pairs"]["clip"][0]["predicted"] == "a"


def test_run_protocol_zero_shot_over_splits_has_mean_deviation_and_full_set() -> None:
    setting = build_setting()
    divisions = (Division("split 1", (), (4, 5)), Division("split 2", (), (10, 16)))
    target = replace(setting.target, divisions=divisions, has_full=True)
    (outcome,) = run_protocol("zero_shot", replace(setting, target=target))
    said = outcome.to_json()["models"]["clip"]
    assert said["values_percent"] == [100.0, 0.0]
    assert said["top1_percent"] == 50.0
    assert said["std_points"] == pytest.approx(70.7107, abs=1e-3)
    assert (said["set"], said["set_videos"]) == ("full set", 17)
    assert said["set_interval"]["percent"] == pytest.approx(100 * 6 / 17, abs=1e-3)


@pytest.mark.parametrize(
    ("protocol", "variants"),
    [("linear_probe", ["sgd", "convex"]), ("knn", ["k = 5", "k = 10"])],
)
def test_run_protocol_probes_learn_from_train_rows_only(protocol: str, variants: list[str]) -> None:
    setting = build_setting()
    before = run_protocol(protocol, setting)  # type: ignore[arg-type]
    assert [outcome.variant for outcome in before] == variants
    assert all(outcome.main.results["adapted"].top1 == 1.0 for outcome in before)
    # Wrong names for the test videos: the same predictions, other accuracy.
    poisoned = ["b" if name == "a" else "a" for name in setting.target.truth]
    truth = list(setting.target.truth)
    for row in setting.target.divisions[0].test:
        truth[row] = poisoned[row]
    after = run_protocol(
        protocol,  # type: ignore[arg-type]
        replace(setting, target=replace(setting.target, truth=tuple(truth))),
    )
    for one, other in zip(before, after, strict=True):
        for model in ("clip", "adapted"):
            assert one.main.results[model].predictions == other.main.results[model].predictions
        assert other.main.results["adapted"].top1 == 0.0


def test_run_protocol_few_shot_is_over_seeds_and_leaves_out_what_no_label_has() -> None:
    setting = build_setting(per_label=5)
    (outcome,) = run_protocol("few_shot", setting)
    assert outcome.variant == "K = 2" and outcome.over == "seeds"
    assert [part.name for part in outcome.parts] == ["seed 0", "seed 1", "seed 2"]
    assert outcome.to_json()["models"]["adapted"]["top1_percent"] == 100.0
    assert "larger K left out" in outcome.notes[0]


def test_run_protocol_linear_probe_reads_slow_and_fast_together() -> None:
    setting = build_setting()
    features = {
        model: {"slow": views["slow"], "fast": replace(views["slow"], pooled=-views["slow"].pooled)}
        for model, views in setting.features.items()
    }
    outcomes = run_protocol("linear_probe", replace(setting, features=features))
    # Their mean is nothing to learn from.
    assert outcomes[1].main.results["adapted"].top1 < 1.0
    knn = run_protocol("knn", replace(setting, features=features))
    assert knn[0].main.results["adapted"].top1 == 1.0


def test_run_protocol_nothing_decoded_is_refused() -> None:
    setting = build_setting()
    with pytest.raises(DataError, match="None of 6"):
        run_protocol("zero_shot", replace(setting, video_ids=()))


def test_run_protocol_features_are_matched_by_video_not_by_place() -> None:
    setting = build_setting()
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = replace(
        setting,
        video_ids=tuple(setting.video_ids[row] for row in order),
        features={
            model: {name: view.select(order) for name, view in views.items()}
            for model, views in setting.features.items()
        },
    )
    for one, other in zip(
        evaluation_samples.build_outcomes(setting),
        evaluation_samples.build_outcomes(shuffled),
        strict=True,
    ):
        assert one.to_json()["models"] == other.to_json()["models"]
