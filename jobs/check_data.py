"""Check a manifest against its files: the entry point for `ray job submit`.

    ray job submit --working-dir . -- python jobs/check_data.py /shared/mine.parquet \
        --decode --out /shared/corrected.parquet

The same code path as `lssl-ray data check`; the job fails when a usable video is not as the
manifest says.
"""

import typer

from lssl_ray.cli_data import data_check

if __name__ == "__main__":
    typer.run(data_check)
