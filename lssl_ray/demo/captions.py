"""Captions for stills of the demo world, written from what is drawn: pose, objects, colours, place.

Captions describe a picture the way a web caption would: sometimes the action's name, mostly what is
visible. They are deliberately not the descriptions in `labels.yaml`, although they share words
with them, as real captions and real descriptions do.
"""

from collections.abc import Sequence

import numpy as np

from lssl_ray.demo.actions import Action
from lssl_ray.demo.figures import Joints, Pose, Prop
from lssl_ray.demo.looks import Frame, Look

__all__ = ["compute_caption", "compute_pose_phrases"]

_NAME_TEMPLATES = (
    "a photo of a person {}.",
    "a picture of someone {}.",
    "a photo of {}.",
    "a person {}",
    "a {color} stick figure {}",
    "a drawing of a person {}",
    "someone is {} in front of a {background} background",
    "{}",
)
_SUBJECTS = (
    "a person",
    "someone",
    "a stick figure",
    "a {color} figure",
    "a {color} stick figure",
    "a person in {color}",
    "a photo of a person",
    "a drawing of a {color} person",
)
_PLACES = (
    "on a {background} background",
    "in front of a {background} wall",
    "before a {background} backdrop",
)
_FLOOR_PLACES = ("on a {background} floor", "in a room with a floor")


# Applied to descriptions only, never to an action's name: these words are in no label's place.
_SYNONYMS = (
    ("{prop} box", "{prop} crate"),
    ("{prop} chair", "{prop} seat"),
    ("{prop} rope", "{prop} cord"),
    ("{prop} bag", "{prop} sack"),
    ("heavy bag", "heavy sack"),
    ("on a chair", "on a seat"),
    ("at a chair", "at a seat"),
)


def _compute_lean(pose: Pose) -> float:
    """Return the torso's tilt in [-180, 180): 0 upright, negative forward, positive backward."""
    return pose.torso % 360.0 - 180.0


def _is_lying(pose: Pose) -> bool:
    lean = _compute_lean(pose)
    return lean > 60.0 or (lean < -55.0 and pose.near_thigh < -50.0)


def _describe_body(pose: Pose, joints: Joints, *, has_chair: bool) -> tuple[str, ...]:
    lean = _compute_lean(pose)
    knees_bent = min(abs(pose.near_thigh), abs(pose.far_thigh)) > 40.0
    if abs(lean) > 140.0:
        return ("upside down with the legs up in the air", "balancing head down on both hands",
                "body upside down, feet above the head")  # fmt: skip
    if lean > 60.0:
        return ("lying on the back with knees bent", "lying on the floor face up",
                "on the back with the feet on the floor")  # fmt: skip
    if _is_lying(pose):
        return ("face down with straight legs and hands on the floor",
                "body stretched low over the floor, held up by the arms",
                "facing the floor with a straight body")  # fmt: skip
    if joints.pelvis.imag < 0.12:
        return ("sitting on the floor with knees bent", "torso raised from the floor, knees bent",
                "on the floor with the upper body curled up")  # fmt: skip
    if has_chair and knees_bent and lean > -25.0:
        return ("seated on a chair", "sitting with the thighs level", "seated with bent knees")
    if knees_bent:
        return ("crouching with bent knees", "hips low and knees bent",
                "half down with the knees deeply bent")  # fmt: skip
    if lean < -55.0:
        return ("bent forward at the waist with straight legs", "upper body bent down level",
                "torso bowed forward, head low")  # fmt: skip
    if lean < -22.0:
        return ("leaning forward", "with the upper body tilted forward")
    return ("standing upright", "standing straight", "standing")


def _describe_arms(pose: Pose, joints: Joints) -> tuple[str, ...]:
    if _is_lying(pose):
        return ()
    if abs(_compute_lean(pose)) > 140.0:
        return ("arms straight down to the floor",)
    heights = [hand.imag - joints.head.imag for hand in joints.hands]
    sides = [abs(hand.real - joints.neck.real) for hand in joints.hands]
    level = [abs(hand.imag - joints.neck.imag) < 0.13 for hand in joints.hands]
    raised = [height > 0.03 for height in heights]
    apart = (joints.hands[0] - joints.neck).real * (joints.hands[1] - joints.neck).real < 0
    if all(raised):
        return ("both arms raised overhead", "both hands up above the head", "arms overhead")
    if any(raised):
        return ("one arm raised", "one hand up beside the head", "a hand raised in the air")
    if all(level) and min(sides) > 0.2:
        if apart:
            return ("arms spread wide to the sides", "arms straight out to both sides")
        return ("both arms stretched forward", "arms held out in front")
    if any(side > 0.24 and flat for side, flat in zip(sides, level, strict=True)):
        return ("one arm stretched forward", "an arm thrust out in front")
    if all(level):
        return ("both hands in front of the chest", "elbows bent, hands near the shoulders")
    if max(sides) < 0.12 and max(heights) < -0.35:
        return ("arms hanging down", "arms at the sides", "arms hanging by the body")
    if apart and min(sides) > 0.12:
        return ("hands out beside the hips", "elbows bent, hands out at hip height")
    return ("hands in front of the body", "arms reaching down in front")


def _describe_legs(pose: Pose, joints: Joints) -> tuple[str, ...]:
    spread = abs((joints.feet[0] - joints.feet[1]).real)
    if abs(_compute_lean(pose)) > 140.0:
        if spread > 0.3:
            return ("legs split apart in the air",)
        return ("legs together pointing up",)
    if _is_lying(pose):
        return ()
    if joints.feet[0].imag > 0.3:
        if pose.near_thigh > 40.0:
            return ("one leg swung forward and up", "a leg lifted high in front")
        return ("one leg swung back", "a foot drawn back behind the body")
    if spread > 0.3:
        return ("legs wide apart", "feet spread wide", "legs apart")
    if min(foot.imag for foot in joints.feet) > 0.07:
        return ("both feet off the floor", "in the air above the floor")
    if abs(pose.near_thigh) < 12.0 and abs(pose.far_thigh) < 12.0:
        return ("legs together", "feet together")
    return ()


def _describe_prop(prop: Prop, joints: Joints) -> tuple[str, ...]:
    place = prop.points[0]
    if prop.kind == "ball":
        if place.imag > 0.25:
            return ("with a {prop} ball in the air", "with a {prop} ball below the hand")
        if place.real > 0.5:
            return ("with a {prop} ball rolling away",)
        return ("with a {prop} ball on the floor", "with a {prop} ball near the feet")
    if prop.kind == "box":
        if place.imag > 0.2:
            return ("holding a {prop} box in both hands", "with a {prop} box against the chest")
        if abs(joints.hands[0] - place) < 0.25:
            return ("both hands on a {prop} box on the floor", "gripping a {prop} box")
        return ("with a {prop} box on the floor", "next to a {prop} box")
    if prop.kind == "chair":
        return ("with a {prop} chair", "a {prop} chair behind the body", "at a chair")
    if prop.kind == "barbell":
        if place.imag > joints.head.imag:
            return ("holding a {prop} barbell overhead", "a heavy bar above the head")
        if place.imag > joints.pelvis.imag + 0.2:
            return ("a {prop} barbell at the shoulders", "a bar with weights at the chest")
        return ("holding a {prop} barbell at the hips", "gripping a bar with weights")
    if prop.kind == "rope":
        middle = prop.points[len(prop.points) // 2].imag
        if middle > joints.head.imag:
            return ("a {prop} rope above the head", "holding a rope that loops overhead")
        return ("a {prop} rope around the feet", "holding both ends of a {prop} rope")
    return ("before a hanging {prop} bag", "a heavy bag hanging in front", "facing a {prop} bag")


def compute_pose_phrases(
    pose: Pose, *, joints: Joints, props: Sequence[Prop]
) -> tuple[tuple[str, ...], ...]:
    """Return groups of interchangeable phrases that are true of a pose.

    Args:
        pose: limb angles in degrees.
        joints: the skeleton placed for that pose.
        props: objects of the scene.

    Returns:
        One group per aspect (body, arms, legs, each object), empty aspects left out; phrases may
        hold the fields {color}, {prop} and {background}.
    """
    has_chair = any(prop.kind == "chair" for prop in props)
    groups = [_describe_body(pose, joints, has_chair=has_chair), _describe_arms(pose, joints),
              _describe_legs(pose, joints)]  # fmt: skip
    groups.extend(_describe_prop(prop, joints) for prop in props)
    return tuple(group for group in groups if group)


def _choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def compute_caption(
    rng: np.random.Generator, *, action: Action, frame: Frame, look: Look, name_share: float
) -> str:
    """Write one caption of a still.

    Args:
        rng: source of the choice of words.
        action: what the figure does, for captions that name it.
        frame: the painted picture's content.
        look: colours and background.
        name_share: chance that the caption is the action's name in a template, in [0, 1].
    """
    if rng.random() < name_share:
        text = _choose(rng, _NAME_TEMPLATES).replace("{}", action.label)
    else:
        groups = compute_pose_phrases(frame.pose, joints=frame.joints, props=frame.props)
        # At least one aspect, usually most of them, in any order.
        kept = [group for group in groups if rng.random() < 0.7] or [groups[-1]]
        order = rng.permutation(len(kept))
        parts = [_choose(rng, kept[int(index)]) for index in order]
        text = ", ".join(parts)
        if rng.random() < 0.7:
            text = f"{_choose(rng, _SUBJECTS)} {text}"
        if rng.random() < 0.25:
            places = _FLOOR_PLACES if look.background_kind == "floor" else _PLACES
            text = f"{text} {_choose(rng, places)}"
        for word, other in _SYNONYMS:
            if rng.random() < 0.4:
                text = text.replace(word, other)
    # Colours are the easiest thing to see; told too often they crowd out pose.
    for field in ("{color} ", "{prop} "):
        if rng.random() < 0.65:
            text = text.replace(field, "")
    return text.format(
        color=look.figure_color, prop=look.prop_color, background=look.background_color
    )
