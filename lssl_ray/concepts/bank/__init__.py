"""The bank: label lists that come with the package, each label with visual descriptions.

See README.md beside this file for who wrote them and how.
"""

from collections.abc import Collection
from functools import cache
from pathlib import Path

from lssl_ray.concepts.vocabulary import Vocabulary, load_vocabulary
from lssl_ray.errors import ConfigError

BANK_PREFIX = "bank:"
DATASETS = ("kinetics400", "ucf101", "hmdb51")
BENCHMARKS_FILE, EVERYDAY_FILE = "benchmarks.yaml", "everyday.yaml"
# Vocabulary to the datasets whose label lists it joins; LSS-C joins none.
_MEMBERS: dict[str, tuple[str, ...]] = {
    "lss-a": DATASETS,
    "lss-b": ("kinetics400",),
    "lss-c": (),
    **{dataset: (dataset,) for dataset in DATASETS},
}
BANK_NAMES = tuple(_MEMBERS)
_FOLDER = Path(__file__).parent


def load_labels(source: str) -> Vocabulary:
    """The labels that a setting or an option means: `bank:NAME`, or a label file.

    Raises:
        ConfigError: No such vocabulary in the bank.
        DataError: A label file that is none.
    """
    if source.startswith(BANK_PREFIX):
        return load_bank(source.removeprefix(BANK_PREFIX))
    return load_vocabulary(Path(source))


def load_bank(name: str) -> Vocabulary:
    """A vocabulary of the bank: a dataset's labels, or LSS-A, LSS-B, LSS-C.

    LSS-A is the union of the datasets' lists (equal phrases once, in the order of `DATASETS`),
    LSS-B is Kinetics-400 alone, LSS-C was written without any dataset's list.

    Raises:
        ConfigError: No such vocabulary.
    """
    if name not in _MEMBERS:
        known = ", ".join(f"{BANK_PREFIX}{known}" for known in BANK_NAMES)
        raise ConfigError(f"The bank has no {BANK_PREFIX}{name}; it has {known}.")
    if not _MEMBERS[name]:
        return _load_file(EVERYDAY_FILE)
    source = _load_file(BENCHMARKS_FILE)
    descriptions = dict(zip(source.labels, source.descriptions, strict=True))
    phrases = dict.fromkeys(
        phrase for dataset in _MEMBERS[name] for phrase in load_published_names(dataset).values()
    )
    return Vocabulary(
        labels=tuple(phrases),
        descriptions=tuple(descriptions[phrase] for phrase in phrases),
        provenance=source.provenance,
    )


@cache
def load_published_names(dataset: str) -> dict[str, str]:
    """A dataset's class names as published (`ApplyEyeMakeup`, `brush_hair`), each to its phrase.

    In published order; values are the bank's labels. Read only.

    Raises:
        ConfigError: No such dataset.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"The bank has no dataset {dataset!r}; it has {', '.join(DATASETS)}.")
    lines = (_FOLDER / f"{dataset}.tsv").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines)
    return {published: phrase for published, phrase in pairs}


def resolve_label(label: str, known: Collection[str]) -> str:
    """A video's label as the vocabulary says it.

    A dataset's published name (`ApplyEyeMakeup`) becomes its phrase where the vocabulary knows
    the phrase and not the name; any other label stays what it is.
    """
    if label in known:
        return label
    phrases = (load_published_names(dataset).get(label) for dataset in DATASETS)
    return next((phrase for phrase in phrases if phrase is not None and phrase in known), label)


@cache
def _load_file(name: str) -> Vocabulary:
    return load_vocabulary(_FOLDER / name)
