"""`lssl-ray atlas`: one page that shows what a run learned."""

from pathlib import Path
from typing import Annotated

import typer

from lssl_ray.display import open_display


def atlas(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run or checkpoint folder.")],
    manifests: Annotated[
        list[Path],
        typer.Argument(metavar="MANIFEST...", help="Manifests of videos, with labels or without."),
    ],
    # As in `atlas.request`, which takes seconds to import.
    concepts: Annotated[
        int, typer.Option(help="Most concepts to show of each kind, names and descriptions.")
    ] = 500,
    clips_per_concept: Annotated[int, typer.Option(help="Top-scoring clips per concept.")] = 6,
    max_videos: Annotated[
        int, typer.Option(help="Most videos to look at, chosen by their ids alone.")
    ] = 5000,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page; default: RUN/atlas/atlas.html.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: a.b=c."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="One process without Ray: for debugging.")
    ] = False,
) -> None:
    """Show what a run learned: per concept the top clips before and after, confusions, a map.

    One HTML file that needs no network, a JSON beside it; both are added to the run in MLflow.
    """
    with open_display() as display:
        # Costs seconds; help and wrong options come at once.
        from lssl_ray.atlas import AtlasRequest, run_atlas

        request = AtlasRequest(
            model=run,
            manifests=tuple(manifests),
            num_concepts=concepts,
            clips_per_concept=clips_per_concept,
            max_videos=max_videos,
            out=out,
            overrides=tuple(overrides or ()),
            local=local,
        )
        run_atlas(request, display=display)
