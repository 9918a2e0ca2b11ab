"""Build a concept space, on the driver's node: the entry point for `ray job submit`.

    ray job submit --working-dir . -- python jobs/build_concepts.py --labels bank:lss-c \
        --clip ViT-B-16 --weights /shared/clip.bin --out /shared/everyday.safetensors

The same code path as `lssl-ray concepts build`; it asks Ray for nothing.
"""

import typer

from lssl_ray.cli_concepts import build_space

if __name__ == "__main__":
    typer.run(build_space)
