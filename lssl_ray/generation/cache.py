"""Accepted answers on disk: what was paid for once is not asked again."""

import hashlib
import json
from pathlib import Path

from lssl_ray.errors import ConfigError
from lssl_ray.generation.questions import SYSTEM, Entries, Question, Reading, write_answer
from lssl_ray.whole_files import write_whole

CACHE_VERSION = 1


class AnswerCache:
    """One JSON file per question, named by digest of model, prompt, schema and images.

    Args:
        folder: Made when absent. Processes may share it: files are replaced whole.
        model: The model that is asked.

    Raises:
        ConfigError: The folder can't be made.
    """

    def __init__(self, folder: Path, *, model: str) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"Cache folder {folder} can't be made: {error}. Choose another --cache."
            ) from error
        self._folder = folder
        self._model = model

    def load(self, question: Question) -> Reading | None:
        """What was accepted before, judged like any answer; None for no file or a damaged one."""
        try:
            record = json.loads(self._path(question).read_text(encoding="utf-8"))
            answer = json.dumps(record["answer"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return question.read(answer, {})

    def save(self, question: Question, entries: Entries) -> None:
        """Keep what is accepted so far."""
        record = {
            "version": CACHE_VERSION,
            "model": self._model,
            "prompt": question.prompt,
            "num_images": len(question.images),
            "answer": write_answer(entries),
        }
        write_whole(self._path(question), json.dumps(record, indent=1, ensure_ascii=False))

    def _path(self, question: Question) -> Path:
        parts = [CACHE_VERSION, self._model, SYSTEM, question.prompt, question.schema]
        state = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        for image in question.images:
            state.update(hashlib.sha256(image).digest())
        return self._folder / f"{state.hexdigest()[:40]}.json"
