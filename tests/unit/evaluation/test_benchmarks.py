"""Packaged splits: published counts, and equality with the official files where they are."""

import gzip
from collections import Counter
from pathlib import Path

import pytest

from lssl_ray.concepts.bank import DATASETS
from lssl_ray.errors import DataError
from lssl_ray.evaluation import benchmarks
from lssl_ray.evaluation.benchmarks import build_benchmark, load_benchmark, save_benchmark
from lssl_ray.evaluation.benchmarks.official import load_splits_from

LISTS = Path(__file__).resolve().parents[4] / "shared" / "labels"
UCF101, HMDB51 = LISTS / "ucf101", LISTS / "hmdb51"
KINETICS400 = LISTS / "kinetics" / "kinetics-400_val.csv"
needs_lists = pytest.mark.skipif(
    not LISTS.is_dir(), reason="the published lists of ../shared/labels are not on this machine"
)


@pytest.mark.parametrize(
    ("name", "num_labels", "num_videos", "sizes"),
    [
        ("ucf101", 101, 13320, [(9537, 3783), (9586, 3734), (9624, 3696)]),
        ("hmdb51", 51, 6766, [(3570, 1530)] * 3),
        ("kinetics400", 400, 19906, [(0, 19906)]),
    ],
)
def test_load_benchmark_has_the_published_counts(
    name: str, num_labels: int, num_videos: int, sizes: list[tuple[int, int]]
) -> None:
    benchmark = load_benchmark(name)
    assert (benchmark.name, len(benchmark.labels)) == (name, num_labels)
    assert len(benchmark.label_by_id) == num_videos
    assert [(len(s.train_ids), len(s.test_ids)) for s in benchmark.splits] == sizes
    assert set(benchmark.label_by_id.values()) == set(benchmark.labels)
    for split in benchmark.splits:
        ids = split.train_ids + split.test_ids
        assert len(set(ids)) == len(ids) and set(ids) <= set(benchmark.label_by_id)


def test_load_benchmark_hmdb51_has_70_and_30_videos_per_class() -> None:
    benchmark = load_benchmark("hmdb51")
    for split in benchmark.splits:
        for ids, count in ((split.train_ids, 70), (split.test_ids, 30)):
            labels = Counter(benchmark.label_by_id[video_id] for video_id in ids)
            assert labels == dict.fromkeys(benchmark.labels, count)


def test_load_benchmark_ucf101_keeps_groups_on_one_side() -> None:
    benchmark = load_benchmark("ucf101")
    for split in benchmark.splits:
        groups = [
            {video_id.rsplit("_c", 1)[0] for video_id in ids}
            for ids in (split.train_ids, split.test_ids)
        ]
        assert not groups[0] & groups[1]


@pytest.mark.parametrize(
    ("name", "video_id", "label", "tested"),
    [
        ("ucf101", "v_HandStandPushups_g01_c01", "HandstandPushups", (0,)),
        ("ucf101", "v_YoYo_g25_c05", "YoYo", ()),
        ("hmdb51", "April_09_brush_hair_u_nm_np1_ba_goo_0", "brush_hair", (2,)),
        ("hmdb51", "RATRACE_wave_f_nm_np1_fr_goo_37", "wave", (1,)),
        ("kinetics400", "0wR5jVB-WPk", "abseiling", (0,)),
    ],
)
def test_load_benchmark_known_videos(
    name: str, video_id: str, label: str, tested: tuple[int, ...]
) -> None:
    benchmark = load_benchmark(name)
    assert benchmark.label_by_id[video_id] == label
    found = [n for n, split in enumerate(benchmark.splits) if video_id in split.test_ids]
    assert tuple(found) == tested


def test_load_benchmark_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="ucf101, hmdb51"):
        load_benchmark("ucf-101")


@needs_lists
@pytest.mark.parametrize("path", [UCF101, HMDB51, KINETICS400])
def test_load_splits_from_official_files_equals_the_package(path: Path) -> None:
    official = load_splits_from(path)
    assert official == load_benchmark(official.name)


@needs_lists
def test_packaged_splits_are_nothing_but_the_official_lists() -> None:
    """Independently of our reader: every line of the published files, as sets."""
    ucf101 = load_benchmark("ucf101")
    for number, split in enumerate(ucf101.splits, start=1):
        for kind, ids in (("train", split.train_ids), ("test", split.test_ids)):
            lines = (UCF101 / f"{kind}list0{number}.txt").read_text().split("\n")
            listed = {tuple(line.split()[0].split("/")) for line in lines if line.strip()}
            assert {(ucf101.label_by_id[i], f"{i}.avi") for i in ids} == listed
    hmdb51 = load_benchmark("hmdb51")
    for number, split in enumerate(hmdb51.splits, start=1):
        for path in HMDB51.glob(f"*/*_test_split{number}.txt"):
            label = path.name.split("_test_split")[0]
            rows = [line.split() for line in path.read_text().split("\n") if line.strip()]
            for code, ids in (("1", split.train_ids), ("2", split.test_ids)):
                own = {f"{i}.avi" for i in ids if hmdb51.label_by_id[i] == label}
                assert own == {name for name, role in rows if role == code}


@pytest.mark.parametrize("name", DATASETS)
def test_save_benchmark_writes_the_packaged_list(name: str, tmp_path: Path) -> None:
    path = save_benchmark(load_benchmark(name), tmp_path)
    packaged = Path(benchmarks.__file__).parent / path.name
    assert gzip.decompress(path.read_bytes()) == gzip.decompress(packaged.read_bytes())
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def write_ucf101(folder: Path, **lists: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3):
        for kind in ("train", "test"):
            name = f"{kind}list0{number}"
            (folder / f"{name}.txt").write_bytes(lists.get(name, "").encode())
    return folder


def test_load_splits_from_ucf101_reads_crlf_and_class_numbers(tmp_path: Path) -> None:
    folder = write_ucf101(
        tmp_path / "ucfTrainTestlist",
        trainlist01="Archery/v_Archery_g08_c01.avi 3\r\nYoYo/v_YoYo_g08_c01.avi 101\r\n",
        testlist01="Archery/v_Archery_g01_c01.avi\r\n",
        testlist02="Archery/v_Archery_g08_c01.avi\r\n",
    )
    assert load_splits_from(folder.parent) == load_splits_from(folder)
    benchmark = load_splits_from(folder)
    assert benchmark.splits[0].train_ids == ("v_Archery_g08_c01", "v_YoYo_g08_c01")
    assert benchmark.splits[0].test_ids == ("v_Archery_g01_c01",)
    assert benchmark.splits[1].test_ids == ("v_Archery_g08_c01",)
    assert benchmark.splits[2].test_ids == ()
    assert benchmark.label_by_id["v_YoYo_g08_c01"] == "YoYo"


def test_load_splits_from_ucf101_video_on_both_sides_is_refused(tmp_path: Path) -> None:
    line = "Archery/v_Archery_g08_c01.avi\n"
    folder = write_ucf101(tmp_path, trainlist02=line, testlist02=line)
    with pytest.raises(DataError, match="split 2 twice"):
        load_splits_from(folder)


def test_load_splits_from_ucf101_missing_list_is_refused(tmp_path: Path) -> None:
    folder = write_ucf101(tmp_path, testlist01="Archery/v_Archery_g01_c01.avi")
    (folder / "trainlist03.txt").unlink()
    with pytest.raises(DataError, match=r"trainlist03\.txt"):
        load_splits_from(folder)


def test_load_splits_from_hmdb51_wrong_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wave_test_split1.txt").write_text("one_wave_1.avi 3 \n")
    with pytest.raises(DataError, match="wave_test_split1"):
        load_splits_from(tmp_path)


def test_load_splits_from_kinetics_csv_reads_its_split_column(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text(
        "label,youtube_id,time_start,time_end,split\n"
        '"air drumming",aaaaaaaaaaa,0,10,train\nabseiling,bbbbbbbbbbb,0,10,validate\n'
    )
    (split,) = load_splits_from(path).splits
    assert (split.train_ids, split.test_ids) == (("aaaaaaaaaaa",), ("bbbbbbbbbbb",))


@pytest.mark.parametrize(
    "text",
    [
        "youtube_id,time_start,time_end,split\naaaaaaaaaaa,0,10,test\n",  # Kinetics' test list
        "label,youtube_id\nwalking a snail,aaaaaaaaaaa\n",
        "label,youtube_id\nabseiling,aaaaaaaaaaa\nair drumming,aaaaaaaaaaa\n",
        "label,youtube_id\n",
    ],
)
def test_load_splits_from_kinetics_csv_unusable_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "some.csv"
    path.write_text(text)
    with pytest.raises(DataError):
        load_splits_from(path)


def test_load_splits_from_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="testlist01"):
        load_splits_from(tmp_path)
    with pytest.raises(DataError, match="testlist01"):
        load_splits_from(tmp_path / "absent")


def test_build_benchmark_foreign_label_is_refused() -> None:
    with pytest.raises(DataError, match="Flying"):
        build_benchmark("ucf101", {"v_Flying_g01_c01": ("Flying", "122")})
