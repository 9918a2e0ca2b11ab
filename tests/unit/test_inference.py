"""Using models: features equal independent ones, and every file has an outcome."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import tiny
import torch
import torch.nn.functional as F

import lssl_ray
from lssl_ray.config import RunConfig, load_config
from lssl_ray.engine import FeatureJob, LocalEngine
from lssl_ray.errors import CheckpointError, ConfigError, DataError
from lssl_ray.evaluation.views import SLOW, EvaluationView
from lssl_ray.inference import VideoModel, load_model
from lssl_ray.training.checkpoint import find_latest_checkpoint
from lssl_ray.video.manifest import load_manifest

NUM_FRAMES = 2  # what the tiny recipe evaluates with


@pytest.fixture(scope="module")
def run_model(trained_run: Path) -> VideoModel:
    return load_model(trained_run, device="cpu")


@pytest.fixture(scope="module")
def clip_model(tiny_clip_dir: Path) -> VideoModel:
    return load_model(f"local-dir:{tiny_clip_dir}", device="cpu")


def load_open_clip(folder: Path) -> open_clip.CLIP:
    model = open_clip.create_model(f"local-dir:{folder}")
    assert isinstance(model, open_clip.CLIP)
    return model.eval()


def draw_pixels(num_clips: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_clips, 3, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def damage(path: Path, source: Path) -> Path:
    path.write_bytes(source.read_bytes())
    return tiny.truncate_video(path)


def test_package_offers_load_model_lazily() -> None:
    assert lssl_ray.load_model is load_model
    assert "load_model" in dir(lssl_ray)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lssl_ray.no_such_name


def test_encode_clip_of_plain_clip_equals_open_clip_averaged_over_frames(
    clip_model: VideoModel, tiny_clip_dir: Path
) -> None:
    pixels = draw_pixels(2)
    with torch.no_grad():
        each = load_open_clip(tiny_clip_dir).encode_image(pixels.flatten(0, 1), normalize=True)
    expected = F.normalize(each.unflatten(0, (2, 3)).mean(dim=1), dim=-1)
    torch.testing.assert_close(clip_model.encode_clip(pixels), expected, rtol=0, atol=1e-5)


def test_encode_clip_of_run_is_unit_length_and_sees_the_order_of_frames(
    run_model: VideoModel, clip_model: VideoModel
) -> None:
    pixels = draw_pixels(2)
    features = run_model.encode_clip(pixels)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))
    assert (features - clip_model.encode_clip(pixels)).abs().max() > 0.01
    backwards = run_model.encode_clip(pixels.flip(1))
    assert (features - backwards).abs().max() > 1e-4


def test_encode_video_of_run_equals_the_evaluation_of_that_run(
    run_model: VideoModel, trained_run: Path, videos: tiny.VideoSet
) -> None:
    manifest = load_manifest(str(videos.manifest))
    checkpoint = find_latest_checkpoint(trained_run)
    assert checkpoint is not None
    job = FeatureJob(
        config=load_config(trained_run / "run_config.yaml"),
        manifest=manifest,
        views={SLOW: EvaluationView(num_frames=NUM_FRAMES, size=32)},
        weights={"adapted": checkpoint / "teacher.safetensors"},
    )
    expected = LocalEngine().extract_features(job).joint("adapted")[:, 0]
    encoded = run_model.encode_video([record.path for record in manifest.records()])
    assert encoded.failures == (None,) * len(manifest)
    torch.testing.assert_close(encoded.require_all(), expected, rtol=0, atol=0)


def test_load_model_run_and_its_checkpoint_are_the_same_model(
    run_model: VideoModel, clip_model: VideoModel, trained_run: Path
) -> None:
    checkpoint = find_latest_checkpoint(trained_run)
    assert checkpoint is not None
    other = load_model(str(checkpoint), device="cpu")
    assert other.digest == run_model.digest != clip_model.digest
    assert other.labels == run_model.labels == tiny.ACTIONS
    assert clip_model.labels is None
    pixels = draw_pixels(1)
    assert torch.equal(other.encode_clip(pixels), run_model.encode_clip(pixels))


def test_encode_text_averages_templates_as_open_clip_does(
    run_model: VideoModel, tiny_clip_dir: Path
) -> None:
    model, tokenizer = load_open_clip(tiny_clip_dir), open_clip.get_tokenizer("ViT-B-32")
    texts, templates = ["moving left", "darkening"], ("a video of {}.", "{}")
    expected = []
    for text in texts:
        tokens = tokenizer([t.format(text) for t in templates], context_length=16)
        with torch.no_grad():
            expected.append(F.normalize(model.encode_text(tokens, normalize=True).mean(0), dim=0))
    actual = run_model.encode_text(texts, templates=templates)
    torch.testing.assert_close(actual, torch.stack(expected), rtol=0, atol=1e-5)
    one = run_model.encode_text("darkening")
    assert one.shape == (1, tiny.EMBEDDING)


def test_classify_gives_softmax_at_the_scale_of_clip(
    run_model: VideoModel, videos: tiny.VideoSet, tiny_clip_dir: Path
) -> None:
    paths = [videos.paths[0], videos.paths[5]]
    labels = ["moving right", "darkening", "a cat"]
    predictions = run_model.classify(paths, labels, top_k=3, templates=("{}",))
    scale = load_open_clip(tiny_clip_dir).logit_scale.exp().item()
    features = run_model.encode_video(paths).require_all().double()
    logits = scale * features @ run_model.encode_text(labels).double().T
    for prediction, path, row in zip(predictions, paths, logits, strict=True):
        shares = {label: (row[i].exp() / row.exp().sum()).item() for i, label in enumerate(labels)}
        assert prediction.path == str(path) and prediction.failure is None
        assert list(prediction.labels) == sorted(labels, key=lambda label: -shares[label])
        np.testing.assert_allclose(
            prediction.scores, sorted(shares.values(), reverse=True), atol=1e-5
        )
    (best,) = run_model.classify(paths[0], labels, top_k=1, templates=("{}",))
    assert best.labels == predictions[0].labels[:1]


def test_classify_puts_labels_into_the_templates_of_the_run(
    run_model: VideoModel, trained_run: Path, videos: tiny.VideoSet
) -> None:
    templates = load_config(trained_run / "run_config.yaml").concepts.templates
    (own,) = run_model.classify(videos.paths[0], tiny.ACTIONS)
    (given,) = run_model.classify(videos.paths[0], tiny.ACTIONS, templates=templates)
    (bare,) = run_model.classify(videos.paths[0], tiny.ACTIONS, templates=("{}",))
    assert own.scores == given.scores != bare.scores
    assert len(own.labels) == 4


def test_bad_videos_keep_their_place_and_say_why(
    run_model: VideoModel, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    good = videos.paths[0]
    bad = damage(tmp_path / "cut.mp4", good)
    paths = [bad, good, tmp_path / "nowhere.mp4"]
    encoded = run_model.encode_video(paths)
    assert [failure is None for failure in encoded.failures] == [False, True, False]
    assert encoded.features.isnan().all(dim=1).tolist() == [True, False, True]
    assert torch.equal(encoded.features[1], run_model.encode_video(good).features[0])
    with pytest.raises(DataError, match="2 of 3"):
        encoded.require_all()
    first, second, third = run_model.classify(paths, tiny.ACTIONS, top_k=2)
    assert first.failure is not None and first.failure.path == str(bad)
    assert (first.labels, first.scores) == ((), ())
    assert len(second.labels) == 2
    assert third.failure is not None and third.failure.reason == "missing"


def test_encode_video_with_other_frames_looks_at_other_frames(
    clip_model: VideoModel, videos: tiny.VideoSet
) -> None:
    path = next(path for path in videos.paths if path.parent.name == "moving left")
    frames = clip_model.decode_video(path, num_frames=1)
    assert isinstance(frames, np.ndarray) and frames.shape == (1, 32, 32, 3)
    one = clip_model.encode_video(path, num_frames=1).features
    assert torch.equal(one, clip_model.encode_frames(frames[None]))
    assert not torch.equal(one, clip_model.encode_video(path).features)
    with pytest.raises(ConfigError, match="num_frames=0"):
        clip_model.encode_video(path, num_frames=0)


@pytest.mark.parametrize(
    ("labels", "options", "named"),
    [
        (["one"], {}, "two"),
        ([], {}, "two"),
        (["a", "b", "a"], {}, "'a'"),
        (["a", "b"], {"top_k": 0}, "top_k=0"),
        (["a", "b"], {"templates": ("no place",)}, "no place"),
        (["a", " "], {}, "empty"),
    ],
)
def test_classify_impossible_request_is_refused(
    clip_model: VideoModel,
    videos: tiny.VideoSet,
    labels: list[str],
    options: dict[str, int],
    named: str,
) -> None:
    with pytest.raises((ConfigError, DataError), match=named):
        clip_model.classify(videos.paths[0], labels, **options)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(3, 3, 32, 32),
        torch.zeros(1, 2, 32, 32, 3),
        torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8),
    ],
)
def test_encode_clip_other_shape_or_type_is_refused(
    clip_model: VideoModel, pixels: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match="pixels"):
        clip_model.encode_clip(pixels)


def test_load_model_of_nothing_says_what_it_takes(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="lssl-ray export"):
            load_model(source)
    with pytest.raises(ConfigError, match="weights"):
        load_model("ViT-B-16")


def test_load_model_untrained_run_is_refused(
    build_config: Callable[..., RunConfig], trained_run: Path, tmp_path: Path
) -> None:
    shutil.copy(trained_run / "run_config.yaml", tmp_path)
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        load_model(tmp_path)


def test_load_model_half_written_or_changed_checkpoint_is_refused(
    trained_run: Path, tmp_path: Path
) -> None:
    checkpoint = find_latest_checkpoint(trained_run)
    assert checkpoint is not None
    half = tmp_path / "half"
    shutil.copytree(checkpoint, half)
    (half / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match="checkpoint"):
        load_model(half)
    changed = tmp_path / "changed"
    shutil.copytree(checkpoint, changed)
    content = bytearray((changed / "teacher.safetensors").read_bytes())
    content[-1] ^= 1
    (changed / "teacher.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="teacher"):
        load_model(changed)


def test_load_model_run_takes_moved_weights_of_its_own_clip_only(
    run_model: VideoModel, trained_run: Path, tiny_clip_dir: Path, tmp_path: Path
) -> None:
    moved = shutil.copy(tiny_clip_dir / "open_clip_model.safetensors", tmp_path / "moved.bin")
    pixels = draw_pixels(1)
    again = load_model(trained_run, weights=moved, device="cpu")
    assert torch.equal(again.encode_clip(pixels), run_model.encode_clip(pixels))
    other = tiny.write_tiny_clip(tmp_path / "other", seed=7) / "open_clip_model.safetensors"
    with pytest.raises(CheckpointError, match="trained from a CLIP"):
        load_model(trained_run, weights=other)


def test_load_model_unknown_device_is_refused(tiny_clip_dir: Path) -> None:
    with pytest.raises(ConfigError, match="no-such"):
        load_model(f"local-dir:{tiny_clip_dir}", device="no-such")
