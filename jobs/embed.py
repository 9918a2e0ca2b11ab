"""Embed a manifest's videos into Parquet: the entry point for `ray job submit`.

    ray job submit --working-dir . -- python jobs/embed.py /shared/mine.parquet \
        --model /shared/runs/NAME --out /shared/embeddings --set cluster.address=auto

The same code path as `lssl-ray embed`; submitted again, it does only what is missing.
"""

import typer

from lssl_ray.cli_export import embed

if __name__ == "__main__":
    typer.run(embed)
