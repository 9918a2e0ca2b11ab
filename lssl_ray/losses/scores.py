"""Scores of clips on concepts: cosines, checked to be that."""

from jaxtyping import Float
from torch import Tensor

UNIT_TOLERANCE = 1e-3


def compute_concept_scores(
    features: Float[Tensor, "views clips embedding"],
    concepts: Float[Tensor, "concepts embedding"],
) -> Float[Tensor, "views clips concepts"]:
    """Cosines of clip features with a concept space's rows.

    Args:
        features: Unit-length rows.
        concepts: Unit-length rows.

    Raises:
        ValueError: Other sizes, or rows whose length is off 1 by more than 1e-3: their products
            would be no cosines, and temperatures would mean something else.
    """
    if features.shape[-1] != concepts.shape[-1]:
        raise ValueError(
            f"Features have {features.shape[-1]} dimensions and concepts {concepts.shape[-1]}; "
            "both must come from the same CLIP."
        )
    for name, rows in (("features", features), ("concepts", concepts)):
        worst = (rows.detach().norm(dim=-1) - 1).abs().max()
        # Non-finite ones pass: the loop stops on them, naming step and worker.
        if UNIT_TOLERANCE < worst < float("inf"):
            raise ValueError(
                f"The length of {name} is off 1 by up to {worst.item():.3g} (allowed: "
                f"{UNIT_TOLERANCE}); normalise them before scoring."
            )
    return features @ concepts.T
