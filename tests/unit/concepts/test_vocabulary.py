"""Label files: both formats, and every way they can be wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lssl_ray.concepts.vocabulary import Vocabulary, load_vocabulary
from lssl_ray.errors import DataError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_load_vocabulary_text_has_a_label_per_line(tmp_path: Path) -> None:
    path = write(tmp_path, "labels.txt", "# actions\n\n  riding a horse \nd\u00e9boucher\n")
    assert load_vocabulary(path) == Vocabulary(
        labels=("riding a horse", "d\u00e9boucher"), descriptions=((), ())
    )
    assert not load_vocabulary(path).has_descriptions


@pytest.mark.parametrize("name", ["labels.yaml", "labels.YML"])
def test_load_vocabulary_yaml_list_has_labels_only(tmp_path: Path, name: str) -> None:
    vocabulary = load_vocabulary(write(tmp_path, name, "labels: [archery, ' bowling ']\n"))
    assert vocabulary.labels == ("archery", "bowling")
    assert not vocabulary.has_descriptions


def test_load_vocabulary_yaml_mapping_keeps_order_and_descriptions(tmp_path: Path) -> None:
    text = "labels:\n  bowling:\n    - a ball\n    - ' a lane '\n  archery: [a bow]\n"
    vocabulary = load_vocabulary(write(tmp_path, "labels.yaml", text))
    assert vocabulary.labels == ("bowling", "archery")
    assert vocabulary.descriptions == (("a ball", "a lane"), ("a bow",))
    assert vocabulary.has_descriptions


def test_load_vocabulary_yaml_mapping_without_any_description_is_labels(tmp_path: Path) -> None:
    vocabulary = load_vocabulary(write(tmp_path, "labels.yaml", "labels: {a: [], b: }\n"))
    assert vocabulary == Vocabulary(labels=("a", "b"), descriptions=((), ()))


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("labels.txt", "", r"0 label\(s\)"),
        ("labels.txt", "# only\nalone\n", r"1 label\(s\)"),
        ("labels.txt", "Archery\nbowling\narchery\n", "duplicate labels"),
        ("labels.yaml", "labels: [a, ' a']", "duplicate labels"),
        ("labels.yaml", "labels: [a, ' ']", "empty"),
        ("labels.yaml", "labels: [a, b", "not valid YAML"),
        ("labels.yaml", "- a\n- b\n", "must hold `labels:`"),
        ("labels.yaml", "names: [a, b]", "must hold `labels:`"),
        ("labels.yaml", "labels: a", "must hold `labels:`"),
        ("labels.yaml", "labels: [a, 7]", "7 must be a text"),
        ("labels.yaml", "labels: {a: [x], no: [y]}", "False must be a text"),
        ("labels.yaml", "labels: {a: x, b: y}", "list of descriptions"),
        ("labels.yaml", "labels: {a: [x], b: [3]}", "a description of 'b'"),
        ("labels.yaml", "labels: {a: [x], b: ['  ']}", "a description of 'b'"),
        ("labels.yaml", "labels: {a: [x], b: [], c: []}", r"not \['b', 'c'\]"),
        ("labels.yaml", "!!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_load_vocabulary_wrong_file_is_refused(
    tmp_path: Path, name: str, text: str, named: str
) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(DataError, match=named) as caught:
        load_vocabulary(path)
    assert str(path) in str(caught.value)


def test_load_vocabulary_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        load_vocabulary(tmp_path / "none.txt")
    path = tmp_path / "labels.txt"
    path.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(DataError, match="can't be read"):
        load_vocabulary(path)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"static": ["a"], "dynamic": ["b"]}, ("a", "b")),
        ({"dynamic": ["b"], "static": ["a"]}, ("a", "b")),
        ({"dynamic": ["b"]}, ("b",)),
        (["a", "b"], ("a", "b")),
    ],
)
def test_label_file_descriptions_come_in_both_shapes(
    tmp_path: Path, entry: Any, expected: tuple[str, ...]
) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text(yaml.safe_dump({"labels": {"x": entry, "y": ["c"]}}))
    assert load_vocabulary(path) == Vocabulary(("x", "y"), (expected, ("c",)))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("labels: {a: {static: [x], moving: [y]}, b: [z]}", "'a' must be a text"),
        ("labels: {a: {static: x}, b: [z]}", "'a' must be a text"),
        ("labels: {a: [x], b: [y], a: [z]}", "duplicate labels"),
        ("labels: {a: [x], b: [y]}\nprovenance: me", "must be a mapping"),
    ],
)
def test_label_file_of_another_shape_is_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=named):
        load_vocabulary(path)
