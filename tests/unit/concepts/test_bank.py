"""The bank's data: complete, clean, and as docs/concepts.md counts it; and the names that reach it.

The language check is a coarse one: words of letters only, and English function words in most
phrases. It catches another language, key-word lists and broken characters, not bad grammar or a
description that is wrong about its action.
"""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from lssl_ray.concepts import bank
from lssl_ray.concepts.bank import BANK_NAMES, DATASETS, load_bank, load_labels
from lssl_ray.concepts.bank import load_published_names as load_names
from lssl_ray.concepts.similarity import compute_overlap
from lssl_ray.errors import ConfigError, DataError

FOLDER = Path(bank.__file__).parent
DOCS = Path(__file__).resolve().parents[3] / "docs" / "concepts.md"
FILES = (bank.BENCHMARKS_FILE, bank.EVERYDAY_FILE)
FUNCTION_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        "a an the of on in at to and with from by into over under for as or its is are while "
        "against behind beside between through around above below across along onto near before "
        "after up down out off one two both each another",
    )
)


def read_file(name: str) -> dict[str, dict[str, list[str]]]:
    """A bank file as plain data, past our own loader."""
    labels = yaml.load((FOLDER / name).read_text("ascii"), Loader=yaml.CSafeLoader)["labels"]
    assert isinstance(labels, dict)
    return labels


@pytest.fixture(scope="module", params=FILES)
def entries(request: pytest.FixtureRequest) -> dict[str, dict[str, list[str]]]:
    return read_file(request.param)


def list_phrases(entries: dict[str, dict[str, list[str]]]) -> list[tuple[str, str]]:
    return [
        (label, phrase)
        for label, kinds in entries.items()
        for phrase in (*kinds["static"], *kinds["dynamic"])
    ]


@pytest.mark.parametrize(
    ("dataset", "count", "first", "last", "example"),
    [
        ("kinetics400", 400, "abseiling", "zumba", ("dying hair", "dyeing hair")),
        ("ucf101", 101, "ApplyEyeMakeup", "YoYo", ("ApplyEyeMakeup", "applying eye makeup")),
        ("hmdb51", 51, "brush_hair", "wave", ("brush_hair", "brushing hair")),
    ],
)
def test_published_names_are_complete_and_in_order(
    dataset: str, count: int, first: str, last: str, example: tuple[str, str]
) -> None:
    names = load_names(dataset)
    lines = (FOLDER / f"{dataset}.tsv").read_text("ascii").splitlines()
    assert len(lines) == len(names) == len(set(names.values())) == count
    assert [next(iter(names)), list(names)[-1]] == [first, last]
    assert names[example[0]] == example[1]


def test_published_names_of_unknown_dataset_are_refused() -> None:
    with pytest.raises(ConfigError, match="kinetics400, ucf101, hmdb51"):
        load_names("kinetics700")


def test_benchmark_descriptions_are_those_of_the_published_lists() -> None:
    wanted = {phrase for dataset in DATASETS for phrase in load_names(dataset).values()}
    assert set(read_file(bank.BENCHMARKS_FILE)) == wanted


def test_everyday_has_a_thousand_labels_of_distinct_words() -> None:
    labels = load_bank("lss-c").labels
    assert len(labels) >= 1000
    # Hyphens, articles and case make no label; an oracle cruder than compute_text_key.
    crude = Counter(re.sub(r"\b(a|an|the)\b|[^a-z]", "", label) for label in labels)
    assert [label for label, count in crude.items() if count > 1] == []


def test_bank_labels_are_lower_case_words(entries: dict[str, dict[str, list[str]]]) -> None:
    wrong = [label for label in entries if not re.fullmatch(r"[a-z][a-z' -]*[a-z]", label)]
    assert wrong == []


def test_bank_entries_have_enough_of_both_kinds(
    entries: dict[str, dict[str, list[str]]],
) -> None:
    for label, kinds in entries.items():
        assert set(kinds) == {"static", "dynamic"}, label
        assert len(kinds["static"]) >= 4 and len(kinds["dynamic"]) >= 2, label


def test_bank_descriptions_are_distinct_and_of_readable_length(
    entries: dict[str, dict[str, list[str]]],
) -> None:
    phrases = list_phrases(entries)
    assert [text for text, n in Counter(text for _, text in phrases).items() if n > 1] == []
    assert [text for _, text in phrases if not 3 <= len(text.split()) <= 14] == []


def test_bank_descriptions_are_plain_lower_case_english(
    entries: dict[str, dict[str, list[str]]],
) -> None:
    phrases = list_phrases(entries)
    word = r"[a-z]+(?:['-][a-z]+)*(?:'|,)?"
    assert [text for _, text in phrases if not re.fullmatch(rf"{word}(?: {word})*", text)] == []
    english = {text for _, text in phrases if FUNCTION_WORDS & set(text.split())}
    assert len(english) / len(phrases) > 0.95
    assert {label for label, text in phrases if text in english} == set(entries)


def test_bank_descriptions_do_not_hold_their_label(
    entries: dict[str, dict[str, list[str]]],
) -> None:
    assert [(label, text) for label, text in list_phrases(entries) if label in text] == []


def test_load_bank_lss_a_is_the_union_with_equal_phrases_once() -> None:
    lists = [load_bank(dataset).labels for dataset in DATASETS]
    union = load_bank("lss-a").labels
    assert set(union) == set(lists[0]) | set(lists[1]) | set(lists[2])
    assert len(union) == len(set(union)) == 480
    assert union[:400] == lists[0] == load_bank("lss-b").labels


def test_load_bank_gives_each_label_its_own_descriptions_static_first() -> None:
    written = read_file(bank.BENCHMARKS_FILE)
    vocabulary = load_bank("hmdb51")
    for label, texts in zip(vocabulary.labels, vocabulary.descriptions, strict=True):
        assert list(texts) == written[label]["static"] + written[label]["dynamic"]


@pytest.mark.parametrize("name", BANK_NAMES)
def test_load_bank_says_who_wrote_it(name: str) -> None:
    assert {"written_by", "date"} <= set(load_bank(name).provenance)


def test_load_labels_takes_bank_names_and_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("archery\nbowling\n")
    assert load_labels(str(path)).labels == ("archery", "bowling")
    assert load_labels("bank:ucf101") == load_bank("ucf101")
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        load_labels(str(tmp_path / "nowhere.txt"))


@pytest.mark.parametrize("source", ["bank:lss-d", "bank:", "bank:../hmdb51", "bank:LSS-A"])
def test_load_labels_unknown_bank_name_lists_the_known(source: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_labels(source)
    assert source in str(caught.value)
    assert all(f"bank:{name}" in str(caught.value) for name in BANK_NAMES)


@pytest.mark.parametrize("name", BANK_NAMES)
def test_docs_count_the_bank_as_it_is(name: str) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in DOCS.read_text("utf-8").splitlines()
        if line.startswith(f"| `bank:{name}` | ")
    ]
    vocabulary = load_bank(name)
    overlaps = [
        compute_overlap(load_bank(dataset).labels, vocabulary.labels) for dataset in DATASETS
    ]
    assert [row[1:6] for row in rows if len(row) == 7] == [
        [
            str(len(vocabulary.labels)),
            str(sum(len(texts) for texts in vocabulary.descriptions)),
            *(f"{overlap.exact} + {overlap.near}" for overlap in overlaps),
        ]
    ]
