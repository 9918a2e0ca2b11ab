"""The sixteen actions of the demo world as key poses over phase, and the objects they use.

An action is a pure function of phase in [0, 1]. Repeating actions wrap around; one-shot actions run
from 0 to 1 once. Two pairs (sitting down / standing up, picking up / putting down) are each
other's exact time reversal: no single frame tells them apart, which caps every frame-wise
classifier at half of those four labels.
"""

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass

from lssl_ray.demo.figures import Anchor, Joints, Pose, Prop, blend_poses

__all__ = ["ACTIONS", "Action", "compute_pose", "compute_props"]

Keys = tuple[tuple[float, Pose], ...]
PropFunction = Callable[[float, Joints], tuple[Prop, ...]]

_CHAIR_X, _SEAT_HEIGHT = -0.22, 0.235
_BOX_X = 0.26


@dataclass(frozen=True)
class Action:
    """One action: its label, key poses, objects and tempo.

    Attributes:
        label: the name a person would use, fitting after "a person".
        keys: (phase, pose) pairs with rising phase, the first at 0, the last at 1.
        props: objects for a phase and the placed skeleton.
        repeats: whether phase wraps around, or the video shows the motion once.
        period_seconds: shortest and longest cycle of a repeating action.
        anchor: the part held at horizontal position 0.
        reversed_of: the label whose exact time reversal this is, else empty.
    """

    label: str
    keys: Keys
    props: PropFunction
    repeats: bool = True
    period_seconds: tuple[float, float] = (0.8, 1.8)
    anchor: Anchor = "feet"
    reversed_of: str = ""


def _no_props(phase: float, joints: Joints) -> tuple[Prop, ...]:
    return ()


def _place_kicked_ball(phase: float, joints: Joints) -> tuple[Prop, ...]:
    flown = max(0.0, phase - 0.5) / 0.5
    return (Prop("ball", (complex(0.33 + 1.1 * flown, 0.07 + 0.9 * flown * (1 - flown)),), 0.07),)


def _place_bounced_ball(phase: float, joints: Joints) -> tuple[Prop, ...]:
    hand = joints.hands[0]
    top = hand.imag - 0.09
    height = 0.07 + (top - 0.07) * (1 - (1 - abs(2 * phase - 1)) ** 2)
    return (Prop("ball", (complex(hand.real + 0.02, height),), 0.075),)


def _place_barbell(phase: float, joints: Joints) -> tuple[Prop, ...]:
    across = joints.hands[0] - joints.hands[1]
    tilt = math.degrees(cmath.phase(across if across.real >= 0 else -across))
    return (Prop("barbell", (0.5 * (joints.hands[0] + joints.hands[1]),), 0.42, angle=tilt),)


def _place_rope(phase: float, joints: Joints) -> tuple[Prop, ...]:
    first, second = joints.hands
    middle, half = 0.5 * (first + second), 0.5 * (first - second)
    swing = math.cos(2 * math.pi * phase)
    # The loop reaches the floor at phase 0.5 and goes over the head at phase 0.
    reach = (1.05 - middle.imag) * swing if swing > 0 else (middle.imag - 0.01) * swing
    points = []
    for index in range(13):
        angle = math.pi * index / 12
        bulge = 1.0 + 0.35 * math.sin(angle)
        points.append(middle + half * math.cos(angle) * bulge + 1j * reach * math.sin(angle))
    return (Prop("rope", tuple(points), 0.0),)


def _place_bag(phase: float, joints: Joints) -> tuple[Prop, ...]:
    hit = max(0.0, math.sin(4 * math.pi * phase))
    return (Prop("bag", (0.40 + 1.35j, complex(0.42 + 0.05 * hit, 0.72)), 0.085),)


def _place_chair(phase: float, joints: Joints) -> tuple[Prop, ...]:
    return (Prop("chair", (complex(_CHAIR_X, _SEAT_HEIGHT - 0.03),), 0.13),)


def _place_box(phase: float, joints: Joints) -> tuple[Prop, ...]:
    held = 0.5 * (joints.hands[0] + joints.hands[1]) + 0.06
    # The grip is where the hands meet the box on the floor; blending hides the small mismatch.
    share = min(1.0, max(0.0, (phase - 0.45) / 0.1))
    place = complex(_BOX_X + 0.06, 0.1) * (1 - share) + held * share
    return (Prop("box", (place,), 0.12),)


def _reverse(keys: Keys) -> Keys:
    return tuple((1.0 - phase, pose) for phase, pose in reversed(keys))


def _reverse_props(props: PropFunction) -> PropFunction:
    def place(phase: float, joints: Joints) -> tuple[Prop, ...]:
        return props(1.0 - phase, joints)

    return place


_STAND = Pose()
_GUARD = Pose(175, 35, 150, 50, 155, 16, 8, -16, -10)
_SIT = Pose(182, 40, 80, 35, 75, 88, 0, 84, 0)
_SIT_LEAN = Pose(142, 45, 70, 40, 65, 62, -22, 58, -24)
_GRASP = Pose(118, 25, 20, 20, 15, 78, -42, 70, -46)
_CARRY = Pose(184, 20, 88, 15, 84, 4, 0, -4, 0)
_PLANK_UP = Pose(113, 2, 0, -3, 0, -67, -67, -66, -66)
_PLANK_DOWN = Pose(101, -72, 28, -70, 30, -79, -79, -78, -78)
_LIE = Pose(-91, 95, 85, 98, 88, 132, 42, 128, 38)
_CURL = Pose(-172, 62, 78, 66, 82, 128, 40, 125, 38)
_SQUAT_DOWN = Pose(148, 92, 92, 88, 88, 98, -32, 92, -36)
_JACK_CLOSED = Pose(180, 10, 6, -10, -6, 3, 2, -3, -2)
_JACK_OPEN = Pose(180, 155, 168, -155, -168, 30, 28, -30, -28)
_WAVE_OUT = Pose(180, 118, 128, -6, -4, 6, 3, -6, -3)
_WAVE_IN = _WAVE_OUT._replace(near_forearm=205, near_upper_arm=126)
_INVERTED = Pose(0, 6, 0, -6, 0, 176, 178, -176, -178)
_INVERTED_SPLIT = Pose(3, 6, 0, -6, 2, 155, 165, -158, -170)
_BACKSWING = Pose(172, -35, -20, 45, 60, -42, -85, 2, 0)
_KICK = Pose(192, 40, 55, -40, -25, 78, 72, -4, 0)
_BAR_HIP = Pose(180, 16, 8, -16, -8, 12, 4, -12, -4)
_BAR_RACK = Pose(180, 52, 172, -52, -172, 16, -4, -16, 4)
_BAR_TOP = Pose(180, 160, 176, -160, -176, 14, 4, -14, -4)
_SKIP_DOWN = Pose(180, 22, 72, -22, -72, 8, -6, -8, 6)
_SKIP_UP = Pose(180, 24, 60, -24, -60, 5, 2, -5, -2, 0.11)
_BOW_DOWN = Pose(96, 6, 4, 0, -2, 2, -6, -4, -8)
_DRIBBLE_HIGH = Pose(170, 40, 88, -12, 10, 16, -10, -10, -14)
_DRIBBLE_LOW = Pose(165, 28, 52, -12, 12, 18, -12, -10, -16)

_SIT_KEYS: Keys = ((0.0, _STAND), (0.55, _SIT_LEAN), (1.0, _SIT))
_PICK_KEYS: Keys = ((0.0, _STAND), (0.45, _GRASP), (0.55, _GRASP), (1.0, _CARRY))

ACTIONS: tuple[Action, ...] = (
    Action(
        "waving a hand",
        ((0, _WAVE_OUT), (0.5, _WAVE_IN), (1, _WAVE_OUT)),
        _no_props,
        period_seconds=(0.5, 1.2),
    ),
    Action(
        "doing jumping jacks",
        (
            (0, _JACK_CLOSED),
            (0.25, blend_poses(_JACK_CLOSED, _JACK_OPEN, amount=0.5)._replace(lift=0.07)),
            (0.5, _JACK_OPEN),
            (0.75, blend_poses(_JACK_CLOSED, _JACK_OPEN, amount=0.5)._replace(lift=0.07)),
            (1, _JACK_CLOSED),
        ),
        _no_props,
    ),
    Action(
        "squatting",
        (
            (0, _STAND._replace(near_upper_arm=30, far_upper_arm=25)),
            (0.5, _SQUAT_DOWN),
            (1, _STAND._replace(near_upper_arm=30, far_upper_arm=25)),
        ),
        _no_props,
        period_seconds=(1.2, 2.4),
    ),
    Action(
        "doing push-ups",
        ((0, _PLANK_UP), (0.5, _PLANK_DOWN), (1, _PLANK_UP)),
        _no_props,
        anchor="pelvis",
    ),
    Action(
        "doing sit-ups",
        ((0, _LIE), (0.5, _CURL), (1, _LIE)),
        _no_props,
        period_seconds=(1.2, 2.4),
        anchor="pelvis",
    ),
    Action(
        "doing a handstand",
        ((0, _INVERTED), (0.5, _INVERTED_SPLIT), (1, _INVERTED)),
        _no_props,
        period_seconds=(1.5, 3.0),
        anchor="pelvis",
    ),
    Action(
        "kicking a ball",
        ((0, _STAND), (0.3, _BACKSWING), (0.55, _KICK), (0.7, _KICK), (1, _STAND)),
        _place_kicked_ball,
        repeats=False,
        anchor="pelvis",
    ),
    Action(
        "lifting a barbell",
        (
            (0, _BAR_HIP),
            (0.25, _BAR_RACK),
            (0.45, _BAR_TOP),
            (0.6, _BAR_TOP),
            (0.8, _BAR_RACK),
            (1, _BAR_HIP),
        ),
        _place_barbell,
        period_seconds=(1.6, 3.2),
    ),
    Action(
        "skipping rope",
        ((0, _SKIP_DOWN), (0.5, _SKIP_UP), (1, _SKIP_DOWN)),
        _place_rope,
        period_seconds=(0.5, 1.0),
    ),
    Action(
        "punching a bag",
        (
            (0, _GUARD),
            (0.15, _GUARD._replace(torso=168, near_upper_arm=88, near_forearm=92)),
            (0.5, _GUARD),
            (0.65, _GUARD._replace(torso=170, far_upper_arm=86, far_forearm=90)),
            (1, _GUARD),
        ),
        _place_bag,
        period_seconds=(0.7, 1.4),
    ),
    Action(
        "bowing",
        ((0, _STAND), (0.4, _BOW_DOWN), (0.6, _BOW_DOWN), (1, _STAND)),
        _no_props,
        period_seconds=(1.5, 3.0),
    ),
    Action("sitting down on a chair", _SIT_KEYS, _place_chair, repeats=False),
    Action(
        "standing up from a chair",
        _reverse(_SIT_KEYS),
        _reverse_props(_place_chair),
        repeats=False,
        reversed_of="sitting down on a chair",
    ),
    Action("picking up a box", _PICK_KEYS, _place_box, repeats=False),
    Action(
        "putting down a box",
        _reverse(_PICK_KEYS),
        _reverse_props(_place_box),
        repeats=False,
        reversed_of="picking up a box",
    ),
    Action(
        "bouncing a ball",
        ((0, _DRIBBLE_HIGH), (0.3, _DRIBBLE_LOW), (1, _DRIBBLE_HIGH)),
        _place_bounced_ball,
        period_seconds=(0.5, 1.0),
    ),
)


def compute_pose(action: Action, *, phase: float) -> Pose:
    """Return the pose at a phase, eased between the action's key poses.

    Args:
        action: one of `ACTIONS`.
        phase: any number for a repeating action (it wraps); else clamped to [0, 1].
    """
    place = phase % 1.0 if action.repeats else min(1.0, max(0.0, phase))
    for (start, first), (end, second) in zip(action.keys, action.keys[1:], strict=False):
        if place <= end:
            share = (place - start) / (end - start)
            return blend_poses(first, second, amount=share * share * (3.0 - 2.0 * share))
    return action.keys[-1][1]


def compute_props(action: Action, *, phase: float, joints: Joints) -> tuple[Prop, ...]:
    """Return the objects at a phase for a placed skeleton; phase is read as in `compute_pose`."""
    place = phase % 1.0 if action.repeats else min(1.0, max(0.0, phase))
    return action.props(place, joints)
