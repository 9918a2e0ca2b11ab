"""Training a tiny CLIP from scratch within minutes: model, losses, optimizers and one update.

CLIP's symmetric contrastive loss, helped by naming the captions' words from the picture. What a
minute on two cores forbids (a hundred thousand updates) is replaced by a better start and a better
optimizer, not by labels: the training sees pictures and captions only.
"""

from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional

from lssl_ray.demo.stills import IMAGE_SIZE, Stills

__all__ = [
    "MODEL_CONFIG",
    "ClipTraining",
    "build_tiny_clip",
    "normalize_pixels",
    "tokenize_captions",
]

MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": IMAGE_SIZE, "layers": 4, "width": 96, "head_width": 32, "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2,
    },
}  # fmt: skip
_LARGEST_LOGIT_SCALE = 4.6052  # log(100), as CLIP clamps it


def tokenize_captions(texts: list[str]) -> Tensor:
    """Return int64 [num texts, context length]."""
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL_CONFIG["text_cfg"]["context_length"])
    tokens: Tensor = tokenizer(texts)
    return tokens


def normalize_pixels(pixels: Tensor) -> Tensor:
    """Map uint8 [B, H, W, 3] to float32 [B, 3, H, W] with CLIP's own mean and deviation."""
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN)
    deviation = torch.tensor(open_clip.OPENAI_DATASET_STD)
    return ((pixels.float() / 255.0 - mean) / deviation).permute(0, 3, 1, 2).contiguous()


def _augment(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Flip the batch and shift it by up to 3 pixels; captions never say left or right."""
    if torch.rand((), generator=generator) < 0.5:
        images = images.flip(3)
    padded = functional.pad(images, (3, 3, 3, 3), mode="replicate")
    y, x = (int(v) for v in torch.randint(0, 7, (2,), generator=generator))
    return padded[:, :, y : y + images.shape[2], x : x + images.shape[3]]


def _compute_contrastive_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    logits = scale * image @ text.T  # [B, B]
    target = torch.arange(len(logits))
    return 0.5 * (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    )


def build_tiny_clip() -> Any:
    """Return a fresh CLIP whose spatial position embedding starts as a smooth grid code.

    From open_clip's random code, a transformer this small spends most of a one-minute training on
    finding out which patches are neighbours.
    """
    model = open_clip.CLIP(**MODEL_CONFIG)
    embedding = model.visual.positional_embedding  # [1 + grid * grid, width]
    grid, width = model.visual.grid_size[0], embedding.shape[1]
    rates = 30.0 ** -(torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    waves = [axis.reshape(-1, 1) * rates for axis in (columns, rows)]
    with torch.no_grad():
        embedding[1:] = 0.3 * torch.cat([f(w) for w in waves for f in (torch.sin, torch.cos)], 1)
    return model


def _build_optimizers(
    model: Any, word_head: nn.Module, *, learning_rate: float
) -> list[torch.optim.Optimizer]:
    """Muon for the transformers' matrices, AdamW for all else.

    Measured with the vision tower alone naming the action, 25 s each: AdamW ended at a loss of
    2.54 and 19 % of held-out stills, Muon at 1.89 and 38 %.
    """
    blocks = (model.visual.transformer, model.transformer)
    matrices = [p for block in blocks for p in block.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    others.extend(word_head.parameters())
    return [
        torch.optim.Muon(matrices, lr=10 * learning_rate, weight_decay=0.01, momentum=0.9),
        torch.optim.AdamW(others, lr=learning_rate, weight_decay=0.0, fused=True),
    ]


def _compute_rate_factor(step: int, *, num_steps: int) -> float:
    """Return the learning rate's share of its peak: short warm-up, plateau, linear descent."""
    return min(1.0, (step + 1) / 20, max(0.02, (1.0 - step / num_steps) / 0.6))


def _compute_word_targets(tokens: Tensor, *, num_words: int) -> Tensor:
    """Return which subwords the captions of each picture hold, rare ones weighing more.

    Args:
        tokens: int64 [num, captions, length] in [0, num_words).
        num_words: number of different subwords.

    Returns:
        float32 [num, num_words], rows summing to 1.
    """
    present = torch.zeros(len(tokens), num_words).scatter_(1, tokens.flatten(1), 1.0)
    weighted = present * torch.log(len(tokens) / present.sum(0))
    return weighted / weighted.sum(1, keepdim=True)


class ClipTraining:
    """The state of one training: model, optimizers, data and where it stands."""

    def __init__(
        self, model: Any, stills: Stills, *, seed: int, num_steps: int, learning_rate: float
    ) -> None:
        self.model = model
        self._pixels = torch.from_numpy(stills.pixels)
        tokens = tokenize_captions([text for group in stills.captions for text in group])
        # Only the few hundred subwords in use are trained: updating all 49408 rows would cost more
        # than the vision tower does. Sorted, so that end-of-text stays the largest number, which is
        # where open_clip reads the sentence's feature.
        self._used, compact = torch.unique(tokens, return_inverse=True)
        self._full_embedding = model.token_embedding
        model.token_embedding = nn.Embedding.from_pretrained(
            model.token_embedding.weight[self._used].detach().clone(), freeze=False
        )
        self._tokens = compact.reshape(len(stills.captions), -1, tokens.shape[1])
        self._words = _compute_word_targets(self._tokens, num_words=len(self._used))
        self._word_head = nn.Linear(MODEL_CONFIG["embed_dim"], len(self._used))
        self._generator = torch.Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64)
        self._optimizers = _build_optimizers(model, self._word_head, learning_rate=learning_rate)
        self._schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: _compute_rate_factor(step, num_steps=num_steps)
            )
            for optimizer in self._optimizers
        ]

    def _draw(self, batch_size: int) -> Tensor:
        if len(self._order) < batch_size:
            self._order = torch.randperm(len(self._pixels), generator=self._generator)
        chosen, self._order = self._order[:batch_size], self._order[batch_size:]
        return chosen

    def run_step(self, *, batch_size: int) -> float:
        """Make one update and return its contrastive loss."""
        chosen = self._draw(batch_size)
        num_captions = self._tokens.shape[1]
        which = torch.randint(0, num_captions, (batch_size,), generator=self._generator)
        images = _augment(normalize_pixels(self._pixels[chosen]), generator=self._generator)
        raw = self.model.encode_image(images)  # [B, E], not normalised
        text = self.model.encode_text(self._tokens[chosen, which], normalize=True)
        contrastive = _compute_contrastive_loss(
            functional.normalize(raw, dim=1), text, self.model.logit_scale.exp()
        )
        # Naming the caption's words from the picture: a denser signal than picking one caption of
        # the batch, and what gets a vision tower from scratch off the plateau at log(batch size).
        words = functional.cross_entropy(self._word_head(raw), self._words[chosen])
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        (contrastive + words).backward()
        for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0.0, _LARGEST_LOGIT_SCALE)
        return float(contrastive.detach())

    def finish(self) -> None:
        """Put the trained rows back into the full token embedding."""
        with torch.no_grad():
            self._full_embedding.weight[self._used] = self.model.token_embedding.weight
        self.model.token_embedding = self._full_embedding
