"""The views on which label-free scores are computed: the same whatever a run trains on.

With a run's own views a sweep would choose easy ones, on which every model agrees with itself.
These are the views that the scores were measured with (docs/label_free_selection.md): the demo
recipe's. A run gives only what its encoder must fit: frames and pixels.
"""

from dataclasses import replace

from lssl_ray.video.recipe import ViewKind, ViewRecipe

NUM_VIEWS = 2
# The draws are no run's own, so that its seed changes nothing.
VIEW_SEED = 0


def build_scoring_views(*, num_frames: int, size: int) -> ViewRecipe:
    """Two views of most of the picture, with the package's default flip and colours.

    Args:
        num_frames: Per view, as in the run's global views.
        size: Height and width, px, likewise.
    """
    kind = ViewKind(
        count=NUM_VIEWS, num_frames=num_frames, size=size, area=(0.8, 1.0), window_share=1.0
    )
    return ViewRecipe(
        global_views=kind,
        local_views=replace(kind, count=0),
        window_seconds=8.5,
        flip_probability=0.5,
        jitter_probability=0.8,
        jitter_strength=(0.4, 0.4, 0.2),
        grey_probability=0.2,
    )
