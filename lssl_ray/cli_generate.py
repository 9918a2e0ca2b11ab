"""`lssl-ray concepts generate`: a vocabulary written by any language model."""

import asyncio
import os
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lssl_ray import __version__
from lssl_ray.display import RunDisplay, open_display

if TYPE_CHECKING:
    from lssl_ray.generation.generator import Failure, Generator
    from lssl_ray.generation.questions import Entries
    from lssl_ray.generation.server import ChatServer, Counts
    from lssl_ray.generation.sources import Source

EXIT_INCOMPLETE = 1
NUM_FAILURES_SHOWN = 20


def generate_vocabulary(
    base_url: Annotated[
        str, typer.Option(help="Chat server, OpenAI's protocol: http://127.0.0.1:8000/v1.")
    ],
    model: Annotated[str, typer.Option(help="The model's name on that server.")],
    labels: Annotated[
        str | None, typer.Option(help="Describe the labels of this file, or of bank:NAME.")
    ] = None,
    theme: Annotated[
        str | None, typer.Option(help="Name actions of this theme, then describe them.")
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(help="Name actions in a manifest's or folder's videos, then describe them."),
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="With --theme: labels wanted.")] = 50,
    sample: Annotated[
        int, typer.Option(min=1, help="With --videos: clips shown, evenly over all.")
    ] = 50,
    frames: Annotated[int, typer.Option(min=1, help="With --videos: frames per clip.")] = 4,
    descriptions: Annotated[
        int, typer.Option(min=2, help="Phrases per label, a third of them on motion.")
    ] = 6,
    batch: Annotated[int, typer.Option(min=1, help="Labels described per request.")] = 8,
    out: Annotated[Path, typer.Option("--out", "-o", help="Label file to write.")] = Path(
        "vocabulary.yaml"
    ),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of answers; default: OUT with .cache as ending.")
    ] = None,
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable with the key; unset: no key is sent.")
    ] = "OPENAI_API_KEY",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at a time.")] = 4,
    max_retries: Annotated[
        int, typer.Option(min=0, help="Times a failed request is sent again.")
    ] = 6,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for one request.")] = 60.0,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Exit with 0 though something is missing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show prompts and estimated cost; ask nothing.")
    ] = False,
) -> None:
    """Let a language model write labels and descriptions into a label file.

    One of --labels, --theme, --videos says of what. What was answered is kept in the cache: the
    same command run again asks only for what is missing.
    """
    with open_display() as display:
        from lssl_ray.generation.cache import AnswerCache
        from lssl_ray.generation.output import check_output
        from lssl_ray.generation.protocol import parse_host
        from lssl_ray.generation.server import ChatServer
        from lssl_ray.generation.sources import load_source

        source = load_source(labels, theme, videos, count=count, sample=sample, frames=frames)
        num_dynamic = descriptions // 3 or 1
        phrases = {"num_static": descriptions - num_dynamic, "num_dynamic": num_dynamic}
        parse_host(base_url)
        if dry_run:
            _show_plan(display, source, batch=batch, **phrases)
            return
        check_output(out)
        server = ChatServer(
            base_url,
            model=model,
            api_key=os.environ.get(api_key_env) or None,
            max_retries=max_retries,
            timeout_seconds=timeout,
            on_note=lambda line: display.show_lines(line),
        )
        entries, failures = asyncio.run(
            _generate(
                source,
                server,
                AnswerCache(cache or out.with_suffix(".cache"), model=model),
                display,
                concurrency=concurrency,
                batch=batch,
                **phrases,
            )
        )
        _write(out, entries, failures, server, source, phrases)
        _show_end(display, out, entries, failures, server.counts)
        if failures and not allow_missing:
            raise typer.Exit(EXIT_INCOMPLETE)


async def _generate(
    source: "Source",
    server: "ChatServer",
    cache: Any,
    display: RunDisplay,
    *,
    concurrency: int,
    batch: int,
    num_static: int,
    num_dynamic: int,
) -> "tuple[Entries, list[Failure]]":
    from lssl_ray.generation.generator import Generator

    def show_count(done: int, total: int) -> None:
        counts = server.counts
        text = f"{counts.requests} requests, {counts.retries} retries, {counts.invalid} invalid"
        display.show_count(done, total, text)

    async with server:
        generator = Generator(server, cache, concurrency=concurrency, on_count=show_count)
        labels = await _name_labels(source, generator, display)
        display.show_phase(f"Describing {len(labels)} labels")
        entries = await generator.describe(
            labels, batch=batch, num_static=num_static, num_dynamic=num_dynamic
        )
    return entries, generator.failures


async def _name_labels(
    source: "Source", generator: "Generator", display: RunDisplay
) -> "list[str] | tuple[str, ...]":
    if source.theme:
        display.show_phase(f"Naming {source.count} actions")
        return await generator.name_theme(source.theme, count=source.count)
    if source.clips:
        from lssl_ray.generation.frames import FrameReader

        display.show_phase(f"Naming actions in {len(source.clips)} clips")
        with FrameReader() as reader:
            return await generator.name_clips(source.clips, reader=reader, num_frames=source.frames)
    return source.labels


def _write(
    out: Path,
    entries: "Entries",
    failures: "list[Failure]",
    server: "ChatServer",
    source: "Source",
    phrases: dict[str, int],
) -> None:
    from lssl_ray.generation.output import write_failures, write_vocabulary
    from lssl_ray.generation.questions import PROMPT_VERSION, compute_prompt_digest

    provenance = {
        "lssl_ray": __version__,
        "model": server.model,
        "host": server.host,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": source.about,
        "prompt_version": PROMPT_VERSION,
        "prompt_digest": compute_prompt_digest(),
        **phrases,
        "missing": len(failures),
        "counts": asdict(server.counts),
    }
    write_failures(out, failures)
    if entries:
        write_vocabulary(out, entries, provenance=provenance)


def _show_end(
    display: RunDisplay, out: Path, entries: "Entries", failures: "list[Failure]", counts: "Counts"
) -> None:
    fallbacks = {name: n for name, n in counts.answers.items() if n and name != "json_schema"}
    display.show_lines(
        f"{len(entries)} labels; {counts.requests} requests ({counts.retries} retries, "
        f"{counts.invalid} answers with something invalid), {counts.cached} from the cache; "
        f"tokens by the server's count: {counts.prompt_tokens} in, {counts.completion_tokens} out",
    )
    if fallbacks:
        kinds = ", ".join(f"{number} as {name}" for name, number in fallbacks.items())
        display.show_lines(f"Fallback: answers not held to the schema by the server: {kinds}")
    if failures:
        from lssl_ray.generation.output import find_failed_path

        shown = failures[:NUM_FAILURES_SHOWN]
        display.show_lines(
            f"Missing: {len(failures)} (all in {find_failed_path(out)}); the same command asks "
            "for them again",
            *(f"  {failure.kind} {failure.name}: {failure.reason}" for failure in shown),
        )
    display.show_lines(f"Label file: {out}" if entries else "Nothing valid came: no label file.")


def _show_plan(
    display: RunDisplay, source: "Source", *, batch: int, num_static: int, num_dynamic: int
) -> None:
    from lssl_ray.generation.estimate import estimate_source

    plan = estimate_source(source, batch=batch, num_static=num_static, num_dynamic=num_dynamic)
    for part in plan:
        display.show_phase(f"{part.kind}: {part.requests} requests, the first of them")
        display.show_lines(part.example)
    display.show_phase("Estimated cost, if every answer is good and nothing is cached")
    for part in plan:
        images = f", and {part.images} images" if part.images else ""
        display.show_lines(
            f"{part.kind}: {part.requests} requests, about {part.input_tokens} tokens in and "
            f"{part.output_tokens} out{images}"
        )
    display.show_lines("Tokens are an estimate: characters divided by 4. Nothing was asked.")
    if source.clips:
        display.show_lines("Descriptions are counted for as many labels as clips can have at most.")
