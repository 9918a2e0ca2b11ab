"""The confusion picture: whole files for any number of labels, that show what was counted."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lssl_ray.evaluation.confusion import Confusion
from lssl_ray.evaluation_pictures import draw_confusion


def build_confusion(size: int, *, seed: int = 0) -> Confusion:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.2, size=(size, size)) + np.diag(rng.integers(5, 30, size=size))
    return Confusion(
        labels=tuple(f"doing ${i}$ thing number {i}" for i in range(size)),
        counts=counts.astype(np.int64),
    )


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("size", [1, 3, 51, 101, 400])
def test_draw_confusion_any_number_of_labels_is_a_picture(tmp_path: Path, size: int) -> None:
    path = tmp_path / "deep" / "confusion.png"
    draw_confusion(build_confusion(size), path)
    pixels = read_png(path)
    assert pixels.shape[0] >= 600 and pixels.shape[1] > pixels.shape[0]
    # Every class keeps a cell that a screen can show.
    assert pixels.shape[0] > 3 * size


def test_draw_confusion_shows_the_counts(tmp_path: Path) -> None:
    right = Confusion(labels=("a", "b"), counts=np.array([[4, 0], [0, 4]]))
    wrong = Confusion(labels=("a", "b"), counts=np.array([[0, 4], [4, 0]]))
    pictures = []
    for name, confusion in (("right", right), ("wrong", wrong)):
        draw_confusion(confusion, tmp_path / f"{name}.png")
        pictures.append(read_png(tmp_path / f"{name}.png").astype(int))
    # The matrix is in the left half: its diagonal changes places.
    assert (pictures[0] != pictures[1]).any(axis=-1).mean() > 0.1


def test_draw_confusion_nothing_wrong_has_a_picture_too(tmp_path: Path) -> None:
    counts = np.diag(np.array([3, 0, 2]))  # and a label without videos
    draw_confusion(Confusion(labels=("a", "b", "c"), counts=counts), tmp_path / "right.png")
    assert read_png(tmp_path / "right.png").size
