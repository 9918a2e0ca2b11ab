"""`lssl-ray track`: what a tracking server missed, sent later."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from lssl_ray.display import open_display

DEFAULT_FOLDER = Path("runs")
EXIT_INCOMPLETE = 1

track_app = typer.Typer(help="Keep MLflow up to date with run folders.", no_args_is_help=True)


@track_app.callback()
def track() -> None:
    """Keep MLflow up to date with run folders."""


@track_app.command()
def sync(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs or sweeps, or names below runs/."),
    ],
    uri: Annotated[
        str | None, typer.Option(help="Another store than the run's own, or the first one.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Another experiment than the run's own.")
    ] = None,
) -> None:
    """Send what MLflow lacks of runs: metrics, settings, tags, artifacts, status.

    A sweep's folder stands for the sweep and its trials. Run it again whenever you like: what is
    there is not sent twice. Exit code 1 when something is still missing.
    """
    with open_display() as display:
        from lssl_ray.tracked import sync_run

        complete = True
        for folder in _add_trials(runs):
            report = sync_run(folder.absolute(), uri=uri, experiment=experiment)
            display.show_lines(
                f"{folder}: {report.num_points} metric values and {report.num_artifacts} "
                "artifacts sent",
                *([] if report.missing is None else [f"  {report.missing}"]),
            )
            complete = complete and report.missing is None
    if not complete:
        raise typer.Exit(EXIT_INCOMPLETE)


def _add_trials(runs: list[Path]) -> Iterator[Path]:
    """The folders that are meant, after each sweep its trials that MLflow is told of."""
    from lssl_ray.locking import find_lock, wait_until_free
    from lssl_ray.sweeping.record import SweepFolder
    from lssl_ray.tracking.outbox import MAIN_OUTBOX, OUTBOX_FOLDER

    for run in runs:
        folder = run if run.is_dir() else DEFAULT_FOLDER / run
        yield folder
        outboxes = SweepFolder(folder).trials.glob(f"*/{OUTBOX_FOLDER}/{MAIN_OUTBOX}.json")
        for trial in sorted(outbox.parent.parent for outbox in outboxes):
            if wait_until_free([find_lock(trial)], seconds=0.0):  # who trains it sends it, too
                yield trial
