"""Zero-shot accuracy as anyone would write it: open_clip, decord and numpy, nothing of ours.

python tests/integration/plain_zero_shot.py CLIP_FOLDER VIDEO...
"""

import sys

import decord
import numpy as np
import open_clip
import torch
from PIL import Image


def classify(clip: str, videos: list[str], labels: list[str], templates: list[str]) -> list[str]:
    """The predicted label of each video: 8 frames, largest centred square, mean over frames."""
    model, _, preprocess = open_clip.create_model_and_transforms(clip)
    tokenizer = open_clip.get_tokenizer(clip)
    predicted = []
    with torch.no_grad():
        rows = []
        for label in labels:
            texts = model.encode_text(tokenizer([t.format(label) for t in templates])).numpy()
            texts /= np.linalg.norm(texts, axis=1, keepdims=True)
            rows.append(texts.mean(axis=0) / np.linalg.norm(texts.mean(axis=0)))
        for video in videos:
            reader = decord.VideoReader(video)
            indices = np.floor(np.linspace(0, len(reader) - 1, 8) + 0.5).astype(int)
            frames = reader.get_batch(indices).asnumpy()
            side = min(frames.shape[1:3])
            top, left = ((length - side) // 2 for length in frames.shape[1:3])
            squares = frames[:, top : top + side, left : left + side]
            images = torch.stack([preprocess(Image.fromarray(square)) for square in squares])
            features = model.eval().encode_image(images).numpy()
            features /= np.linalg.norm(features, axis=1, keepdims=True)
            predicted.append(labels[int(np.argmax(np.array(rows) @ features.mean(axis=0)))])
    return predicted


if __name__ == "__main__":
    names = ["archery", "bowling"]
    print(classify(f"local-dir:{sys.argv[1]}", sys.argv[2:], names, ["a video of {}."]))
