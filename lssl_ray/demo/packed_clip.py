"""The tiny CLIP as it ships: half precision, and only the token rows that the world's texts use.

Made by these two commands (some five minutes on 2 cores):

    python -m lssl_ray.demo.tiny_clip --out DIR
    python -m lssl_ray.demo.packed_clip --clip DIR

`unpack_tiny_clip` lays it out again as any CLIP on disk. Rows of tokens that no caption held were
never trained; they come back as zeros.
"""

import argparse
import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from lssl_ray.demo.contrastive import MODEL_CONFIG, tokenize_captions
from lssl_ray.demo.stills import render_stills

PACKED_FILE = Path(__file__).parent / "tiny_clip.safetensors"
_TOKENS, _ROWS = "token_embedding.weight", "token_embedding.used_rows"
_CONFIG_FILE, _WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"


def pack_tiny_clip(clip_folder: Path, used_rows: torch.Tensor, *, out: Path = PACKED_FILE) -> int:
    """Write the shipped file; returns its size in bytes.

    Args:
        clip_folder: A trained tiny CLIP in open_clip's local-dir layout.
        used_rows: int64, ids of the tokens to keep.
        out: File to write.
    """
    weights = load_file(clip_folder / _WEIGHTS_FILE)
    packed = {name: value.half() for name, value in weights.items() if name != _TOKENS}
    packed[_TOKENS] = weights[_TOKENS][used_rows].half()
    packed[_ROWS] = used_rows.to(torch.int32)
    save_file({name: value.contiguous() for name, value in packed.items()}, out)
    return out.stat().st_size


def unpack_tiny_clip(out_dir: Path) -> Path:
    """Lay the shipped CLIP out as an open_clip folder (`local-dir:OUT_DIR`), in float32."""
    packed = load_file(PACKED_FILE)
    rows = packed.pop(_ROWS).long()
    weights = {name: value.float() for name, value in packed.items()}
    table = torch.zeros(MODEL_CONFIG["text_cfg"]["vocab_size"], weights[_TOKENS].shape[1])
    table[rows] = weights[_TOKENS]
    weights[_TOKENS] = table
    out_dir.mkdir(parents=True, exist_ok=True)
    save_file(weights, out_dir / _WEIGHTS_FILE)
    (out_dir / _CONFIG_FILE).write_text(json.dumps({"model_cfg": MODEL_CONFIG}, indent=2) + "\n")
    return out_dir


def compute_used_rows(num_stills: int = 4000) -> torch.Tensor:
    """Ids of all tokens in captions, labels and descriptions, ascending."""
    labels = yaml.safe_load((Path(__file__).parent / "labels.yaml").read_text(encoding="utf-8"))
    texts = [text for name, phrases in labels["labels"].items() for text in (name, *phrases)]
    texts += ["a photo of a person.", "a video of a person.", "a person is."]
    captions = render_stills(num_stills, seed=0).captions
    texts += [text for group in captions for text in group]
    rows: torch.Tensor = tokenize_captions(texts).unique(sorted=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Pack a trained tiny CLIP into the package.")
    parser.add_argument("--clip", type=Path, required=True, help="folder of the trained CLIP")
    pack_tiny_clip(parser.parse_args().clip, compute_used_rows())
