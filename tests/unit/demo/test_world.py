"""The demo world: deterministic files, honest labels, geometry that means what captions say."""

from dataclasses import fields
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from lssl_ray.demo.actions import ACTIONS, Action, compute_pose, compute_props
from lssl_ray.demo.captions import compute_pose_phrases
from lssl_ray.demo.conditions import STILL, VIDEO
from lssl_ray.demo.figures import Body, compute_joints
from lssl_ray.demo.looks import build_look, paint_frame
from lssl_ray.demo.world import SPLITS, VideoFacts, render_video, render_world
from lssl_ray.errors import ConfigError

LABELS_FILE = Path(__file__).parents[3] / "lssl_ray" / "demo" / "labels.yaml"


def _find_action(label: str) -> Action:
    return next(action for action in ACTIONS if action.label == label)


def _find_phrases(label: str, *, phase: float) -> set[str]:
    action = _find_action(label)
    pose = compute_pose(action, phase=phase)
    joints = compute_joints(pose, body=Body(), anchor=action.anchor)
    props = compute_props(action, phase=phase, joints=joints)
    groups = compute_pose_phrases(pose, joints=joints, props=props)
    return {phrase for group in groups for phrase in group}


def _read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.mp4")
    }


def test_render_video_same_arguments_gives_same_bytes(tmp_path: Path) -> None:
    first = render_video(tmp_path / "a", seed=3, split="train", index=5)
    second = render_video(tmp_path / "b", seed=3, split="train", index=5)
    assert first == second
    assert (tmp_path / "a" / first.path).read_bytes() == (tmp_path / "b" / second.path).read_bytes()


@pytest.mark.parametrize(
    ("seed", "split", "index"), [(4, "train", 5), (3, "selection", 5), (3, "train", 21)]
)
def test_render_video_other_draw_gives_other_bytes(
    tmp_path: Path, seed: int, split: str, index: int
) -> None:
    base = render_video(tmp_path, seed=3, split="train", index=5)
    other = render_video(tmp_path, seed=seed, split=split, index=index)
    assert base.label == other.label  # round robin over 16 actions
    assert (tmp_path / base.path).read_bytes() != (tmp_path / other.path).read_bytes()


@pytest.mark.parametrize("index", range(4))
def test_render_video_file_holds_what_facts_say(tmp_path: Path, index: int) -> None:
    facts = render_video(tmp_path, seed=0, split="validation", index=index)
    with av.open(str(tmp_path / facts.path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate is not None
        assert float(stream.average_rate) == pytest.approx(facts.fps, rel=1e-3)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == facts.num_frames
    assert frames[0].shape == (facts.height, facts.width, 3)
    assert 1.0 <= facts.duration_seconds <= 4.01
    # Something moves.
    assert np.abs(frames[0].astype(int) - frames[len(frames) // 2].astype(int)).max() > 20


def test_render_video_unknown_split_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="test"):
        render_video(tmp_path, seed=0, split="test", index=0)


def test_render_world_any_number_of_workers_gives_same_files(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = render_world(
        tmp_path / "one", seed=1, num_train=10, num_selection=3, num_validation=16, num_workers=1,
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    render_world(
        tmp_path / "two", seed=1, num_train=10, num_selection=3, num_validation=16, num_workers=2
    )
    files = _read_files(tmp_path / "one")
    assert files == _read_files(tmp_path / "two")
    assert seen[-1] == (29, 29)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert report.num_videos == {"train": 10, "selection": 3, "validation": 16}
    assert report.num_per_action["validation"] == {action.label: 1 for action in ACTIONS}
    assert report.size_bytes == sum(len(content) for content in files.values())
    assert set(report.ranges) == {field.name for field in fields(VideoFacts)} - {"path", "label"}


def test_render_world_only_held_back_videos_carry_labels(tmp_path: Path) -> None:
    render_world(tmp_path, seed=2, num_train=16, num_selection=16, num_validation=0, num_workers=1)
    train = sorted(path.relative_to(tmp_path / "train") for path in tmp_path.glob("train/**/*.mp4"))
    assert len(train) == 16
    assert all(len(path.parts) == 1 for path in train)
    # Names must not be in the order of drawing, which is the order of actions.
    drawn = [
        Path(render_video(tmp_path / "again", seed=2, split="train", index=index).path).name
        for index in range(16)
    ]
    assert sorted(drawn) != drawn
    folders = {path.parent.name for path in tmp_path.glob("selection/*/*.mp4")}
    assert folders == {action.label for action in ACTIONS}


def test_render_world_into_used_folder_raises(tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "old.mp4").write_bytes(b"")
    with pytest.raises(ConfigError, match="validation"):
        render_world(tmp_path, seed=0, num_train=1, num_selection=1, num_validation=1)
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"num_workers": 0}, {"num_train": -1},
               {"num_train": 0, "num_selection": 0, "num_validation": 0}],
)  # fmt: skip
def test_render_world_impossible_count_raises(tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        render_world(tmp_path, **change)  # type: ignore[arg-type]


def test_actions_labels_are_unique_and_can_name_folders() -> None:
    assert len(ACTIONS) >= 12
    assert len({action.label for action in ACTIONS}) == len(ACTIONS)
    assert all("/" not in action.label for action in ACTIONS)


@pytest.mark.parametrize("phase", [0.0, 0.2, 0.5, 0.77, 1.0])
def test_actions_reversed_pairs_share_every_frame(phase: float) -> None:
    pairs = [(action, _find_action(action.reversed_of)) for action in ACTIONS if action.reversed_of]
    assert len(pairs) == 2
    for backward, forward in pairs:
        pose = compute_pose(backward, phase=phase)
        assert pose == pytest.approx(compute_pose(forward, phase=1.0 - phase))
        joints = compute_joints(pose, body=Body(), anchor=backward.anchor)
        (there,) = compute_props(backward, phase=phase, joints=joints)
        (here,) = compute_props(forward, phase=1.0 - phase, joints=joints)
        assert there.points == pytest.approx(here.points)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.label)
def test_actions_every_phase_moves_smoothly(action: Action) -> None:
    poses = np.array([compute_pose(action, phase=phase) for phase in np.linspace(0, 1, 201)])
    angles, lifts = poses[:, :-1], poses[:, -1]
    assert np.abs(np.diff(angles, axis=0)).max() < 10.0
    assert np.ptp(angles, axis=0).max() > 10.0
    assert 0.0 <= lifts.min() <= lifts.max() < 0.2
    if action.repeats:
        np.testing.assert_allclose(poses[0], poses[-1])


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.label)
def test_joints_any_pose_rests_on_the_floor(action: Action) -> None:
    for phase in np.linspace(0, 1, 11):
        pose = compute_pose(action, phase=float(phase))
        body = Body()
        joints = compute_joints(pose, body=body, anchor=action.anchor)
        points = (joints.pelvis, joints.neck, *joints.hands, *joints.knees, *joints.feet)
        lowest = min(point.imag for point in points) - 0.5 * body.thickness
        assert lowest >= pose.lift - 1e-9
        assert abs(joints.neck - joints.pelvis) == pytest.approx(body.torso)


@pytest.mark.parametrize(
    ("label", "phase", "expected", "absent"),
    [
        ("doing a handstand", 0.0, "balancing head down on both hands", "standing"),
        ("doing sit-ups", 0.0, "lying on the back with knees bent", "standing"),
        ("doing push-ups", 0.5, "facing the floor with a straight body", "standing"),
        ("doing jumping jacks", 0.5, "both arms raised overhead", "arms at the sides"),
        ("doing jumping jacks", 0.0, "arms at the sides", "legs apart"),
        ("waving a hand", 0.3, "one arm raised", "both arms raised overhead"),
        ("bowing", 0.5, "upper body bent down level", "standing"),
        ("sitting down on a chair", 1.0, "seated on a chair", "standing"),
        ("standing up from a chair", 1.0, "standing", "seated on a chair"),
        ("squatting", 0.5, "crouching with bent knees", "seated on a chair"),
        ("picking up a box", 1.0, "holding a {prop} box in both hands", "gripping a {prop} box"),
        ("putting down a box", 1.0, "with a {prop} box on the floor", "gripping a {prop} box"),
        ("lifting a barbell", 0.5, "holding a {prop} barbell overhead", "arms at the sides"),
        ("kicking a ball", 0.6, "one leg swung forward and up", "legs together"),
    ],
)
def test_pose_phrases_tell_what_is_drawn(
    label: str, phase: float, expected: str, absent: str
) -> None:
    phrases = _find_phrases(label, phase=phase)
    assert expected in phrases
    assert absent not in phrases


def test_paint_frame_shows_the_figure_in_its_colour() -> None:
    rng = np.random.default_rng(0)
    look = build_look(rng, conditions=STILL, width=96, height=96)
    frame = paint_frame(_find_action("bowing"), look=look, phase=0.0, seconds=0.0, rng=rng)
    middle = 0.5 * (frame.joints.pelvis + frame.joints.neck)
    x, y = look.camera.project(middle)
    assert frame.pixels.shape == (96, 96, 3)
    assert frame.pixels.dtype == np.uint8
    shown = frame.pixels[round(y), round(x)].astype(int)
    assert np.abs(shown - np.array(look.palette.near)).max() < 30


def test_conditions_videos_are_no_easier_than_stills() -> None:
    assert VIDEO.noise_sigma[1] > STILL.noise_sigma[1]
    assert VIDEO.contrast[0] < STILL.contrast[0]
    assert VIDEO.figure_scale[0] < STILL.figure_scale[0]
    assert set(STILL.backgrounds) < set(VIDEO.backgrounds)


def test_labels_file_describes_exactly_the_actions() -> None:
    vocabulary = yaml.safe_load(LABELS_FILE.read_text(encoding="utf-8"))["labels"]
    assert list(vocabulary) == [action.label for action in ACTIONS]
    for label, descriptions in vocabulary.items():
        assert len(descriptions) >= 6
        assert len(set(descriptions)) == len(descriptions)
        assert not [text for text in descriptions if label in text]


def test_splits_are_three() -> None:
    assert SPLITS == ("train", "selection", "validation")
