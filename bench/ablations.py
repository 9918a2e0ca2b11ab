"""What each part of the method does on the demo world: one table over seeds.

Shorter runs than the demo's (2 epochs instead of 6), so that all rows fit: compare rows with each
other, not with docs/demo_gain.md. Nothing was tuned for any row but the demo's own recipe.

    python bench/ablations.py            # 2 seeds x 12 rows: 27 minutes on 2 cores
"""

from pathlib import Path
from typing import Annotated

import typer
from demo_gain import VARIANTS, format_table, train_variants
from rich.console import Console

from lssl_ray.demo.job import FULL, LABELS

SHORT = ["optim.epochs=2"]
_ALONE = {
    "distill_category": ["align", "distill_description", "prior"],
    "distill_description": ["align", "distill_category", "prior"],
    "align": ["distill_category", "distill_description", "prior"],
    "prior": ["align", "distill_category", "distill_description"],
}
ROWS: dict[str, tuple[str, list[str]]] = {
    "full": ("full method, pooled layout, the world's labels", []),
    "full_layout": ("full layout: a row per description", ["concepts.layout=full"]),
    **{
        f"{kept}_alone": (
            f"{kept.replace('_', ' ')} alone",
            [f"objective.weight_{name}=0" for name in others],
        )
        for kept, others in _ALONE.items()
    },
    "category": VARIANTS["category"],
    "dino": (
        "DINO-style head on the same backbone, no language",
        [
            "objective.space=prototypes",
            "objective.num_prototypes=1024",
            "objective.weight_prior=0",
            "objective.weight_align=0",
            "objective.teacher_temperature=0.04",
        ],
    ),
    "svt_views": (
        "SVT-style views: crops of 0.4 to 1, four small local ones",
        [
            "views.global.area=[0.4,1.0]",
            "views.local.count=4",
            "views.local.num_frames=4",
            "views.local.size=24",
            "views.local.area=[0.05,0.4]",
        ],
    ),
    **{
        f"lss_{letter}": (
            f"vocabulary LSS-{letter.upper()} instead of the world's labels",
            [f"concepts.labels=bank:lss-{letter}", f"evaluation.labels={LABELS}"],
        )
        for letter in "abc"
    },
}


def main(
    seeds: Annotated[int, typer.Option(help="Seeds 0..n-1.")] = 2,
    rows: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    folder: Annotated[Path, typer.Option()] = Path("demo"),
    out: Annotated[Path, typer.Option()] = Path("demo/ablations.json"),
    overrides: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    console = Console()
    names = list(ROWS) if rows == "all" else rows.split(",")
    results = train_variants(
        {name: ROWS[name] for name in names},
        seeds=range(seeds),
        size=FULL,
        split="validation",
        folder=folder,
        out=out,
        overrides=[*SHORT, *(overrides or [])],
        console=console,
    )
    console.print(format_table(results, ROWS), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
