"""`lssl-ray doctor`: is this machine or cluster ready for a run?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from lssl_ray.display import open_display
from lssl_ray.errors import ConfigError

EXIT_PROBLEM = 1


def doctor(
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Recipe to check for; without it, the machines alone."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: a.b=c."),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="This machine, without Ray.")] = False,
    deadline: Annotated[
        float, typer.Option(min=1.0, help="Seconds in which nodes must answer.")
    ] = 60.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the findings there, too.")
    ] = None,
) -> None:
    """Check a machine or cluster before a run, and say what to fix.

    Exit code 1 with a problem; warnings alone are 0. Nothing is left behind.
    """
    with open_display() as display:
        # Costs seconds; help and wrong options come at once.
        from lssl_ray.diagnosing import DoctorRequest, diagnose
        from lssl_ray.whole_files import write_whole

        request = DoctorRequest(
            config=config,
            overrides=tuple(overrides or ()),
            local=local,
            deadline_seconds=deadline,
        )
        report = diagnose(request, on_phase=display.show_phase)
        display.show_table(report.to_table())
        counts = ", ".join(f"{count} {status}" for status, count in report.counts.items())
        display.show_lines(f"{counts}; {report.seconds:.0f} s")
        if json_file is not None:
            text = json.dumps(report.to_json(), indent=2, ensure_ascii=False)
            try:
                write_whole(json_file, text + "\n")
            except OSError as error:
                raise ConfigError(
                    f"--json {json_file} can't be written: {error.strerror}. Choose another file."
                ) from error
    if report.has_problem:
        raise typer.Exit(EXIT_PROBLEM)
