"""Lists of videos in the formats that datasets are published in."""

from collections import Counter
from pathlib import Path

import pytest

from lssl_ray.errors import DataError
from lssl_ray.video.lists import UNUSED, Entry, NameIndex, VideoList, load_list

LABELS = Path(__file__).resolve().parents[4] / "shared" / "labels"


def _load(folder: Path, name: str, text: str) -> VideoList:
    path = folder / name
    path.write_bytes(text.encode())
    return load_list(str(path))


def _rows(videos: VideoList) -> list[tuple[str, str | None, str | None]]:
    return [(entry.path, entry.label, entry.split) for entry in videos.entries]


@pytest.fixture
def published() -> Path:
    if not LABELS.is_dir():
        pytest.skip("the published lists of ../shared/labels are not on this machine")
    return LABELS


def test_load_list_kinetics_names_clips_by_id_and_seconds(tmp_path: Path) -> None:
    text = "label,youtube_id,time_start,time_end,split,is_cc\n"
    text += '"air drumming",_axE99QAhe8,26,36,train,0\nabseiling,-3B32lodo2M,0,10,val,0\n'
    videos = _load(tmp_path, "any.csv", text)
    assert "Kinetics" in videos.format
    assert videos.entries[0] == Entry(
        2,
        "_axE99QAhe8_000026_000036.mp4",
        ("_axE99QAhe8_000026_000036", "_axE99QAhe8"),
        "air drumming",
        "train",
    )
    assert (videos.entries[1].label, videos.entries[1].split) == ("abseiling", "val")


@pytest.mark.parametrize(
    ("header", "row", "label"),
    [
        ("youtube_id,time_start,time_end,split\n", "--6bJUbfpnQ,17,27,test", None),
        ("", "abseiling,--6bJUbfpnQ,17,27,test", "abseiling"),
    ],
)
def test_load_list_kinetics_without_labels_or_header_is_known(
    tmp_path: Path, header: str, row: str, label: str | None
) -> None:
    videos = _load(tmp_path, "test.csv", f"{header}{row}\n")
    assert _rows(videos) == [("--6bJUbfpnQ_000017_000027.mp4", label, "test")]


UCF_TRAIN = (
    "Archery/v_Archery_g08_c01.avi 3\r\nHandstandPushups/v_HandStandPushups_g08_c01.avi 37\n"
)
UCF_TEST = "Archery/v_Archery_g01_c01.avi\r\n"


def test_load_list_ucf101_takes_classes_from_class_file_or_folder(tmp_path: Path) -> None:
    expected = [
        ("Archery/v_Archery_g08_c01.avi", "Archery", "train"),
        ("HandstandPushups/v_HandStandPushups_g08_c01.avi", "HandstandPushups", "train"),
    ]
    assert _rows(_load(tmp_path, "trainlist01.txt", UCF_TRAIN)) == expected
    (tmp_path / "classInd.txt").write_bytes(b"3 Archery\r\n37 HandstandPushups\r\n")
    videos = _load(tmp_path, "trainlist01.txt", UCF_TRAIN)
    assert (videos.format, _rows(videos)) == ("UCF101 split", expected)
    assert _rows(_load(tmp_path, "testlist01.txt", UCF_TEST)) == [
        ("Archery/v_Archery_g01_c01.avi", "Archery", "test")
    ]


def test_load_list_hmdb51_marks_train_test_and_unused(tmp_path: Path) -> None:
    text = "a_kick_ball_f_1.avi 1 \nb_kick_ball_f_2.avi 2 \nc_kick_ball_f_3.avi 0 \n"
    videos = _load(tmp_path, "kick_ball_test_split2.txt", text)
    assert videos.format == "HMDB51 split"
    assert _rows(videos) == [
        ("kick_ball/a_kick_ball_f_1.avi", "kick_ball", "train"),
        ("kick_ball/b_kick_ball_f_2.avi", "kick_ball", "test"),
        ("kick_ball/c_kick_ball_f_3.avi", "kick_ball", UNUSED),
    ]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("path,label,split\na b.mp4,x,train\n", [("a b.mp4", "x", "train")]),
        ("\ufeffLabel , Path\r\nx,a.mp4\r\n\r\n", [("a.mp4", "x", None)]),
        ("a.mp4,x\nb.mp4,\n", [("a.mp4", "x", None), ("b.mp4", None, None)]),
        ('"a, b.mp4",x\n', [("a, b.mp4", "x", None)]),
        ("path\na.mp4\n", [("a.mp4", None, None)]),
        ("a.mp4\nsub/b c.MKV\n", [("a.mp4", None, None), ("sub/b c.MKV", None, None)]),
        ("one, two.mp4\nthree.mp4\n", [("one, two.mp4", None, None), ("three.mp4", None, None)]),
        ("v/a.mp4 325\nv/b 1.mp4 0\n", [("v/a.mp4", "325", None), ("v/b 1.mp4", "0", None)]),
        ("s3://bucket/a.mp4\n", [("s3://bucket/a.mp4", None, None)]),
    ],
)
def test_load_list_plain_forms_are_told_apart(
    tmp_path: Path, text: str, rows: list[tuple[str, str | None, str | None]]
) -> None:
    assert _rows(_load(tmp_path, "list.txt", text)) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("dear reader\nthese are notes\n", "not a list of videos"),
        ("label,youtube_id,time_start,time_end\nx,abc,zero,10\n", "line 2.*time_start"),
        ("path,label\na.mp4\n", "line 2: .* a path and a label"),
        ("\xff\xfe", "can't be read"),
    ],
)
def test_load_list_in_no_known_format_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        load_list(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "video,label\na.mp4,x\nb.mp4,y\n",
        "Label;Video,Other\n x,a.mp4\n",
        "label,video\nrun,a.mp4\n",
        "clip_uri,action\ns/a.mp4,x\n",
        "filename,class\nclip_1,run\nclip_2,jump\n",
        "video\na.mp4\n",
        "label,video_id,start,end\nrun,abc,1,11\n",
    ],
)
def test_load_list_header_without_a_known_column_is_refused_with_the_known_ones(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"line 1: .*path,label"):
        load_list(str(path))


@pytest.mark.parametrize(
    "text",
    ["clip_1,run\nclip_2,jump\n", "v/1\nv/a.mp4\n", "s3://b/video,label\ns3://b/w,x\n"],
)
def test_load_list_first_row_without_extension_is_no_header(tmp_path: Path, text: str) -> None:
    assert len(_rows(_load(tmp_path, "list.txt", text))) == 2


def test_name_index_prefers_exact_name_and_asks_when_it_cant_tell() -> None:
    entry = Entry(7, "k_000001_000011.mp4", ("k_000001_000011", "k"), "air drumming", "val")
    exact, plain = "/d/x/k_000001_000011.mkv", "/d/k.mp4"
    assert NameIndex([plain, exact]).find(entry, "l.csv") == exact
    assert NameIndex([plain]).find(entry, "l.csv") == plain
    assert NameIndex(["/d/other.mp4"]).find(entry, "l.csv") is None
    by_split = ["/d/train/k.mp4", "/d/val/k.mp4"]
    assert NameIndex(by_split).find(entry, "l.csv") == "/d/val/k.mp4"
    by_label = ["/d/air_drumming/k.mp4", "/d/archery/k.mp4"]
    assert NameIndex(by_label).find(entry, "l.csv") == "/d/air_drumming/k.mp4"
    with pytest.raises(DataError, match=r"l\.csv line 7: .* may be /a/k\.mp4 or /b/k\.mp4"):
        NameIndex(["/a/k.mp4", "/b/k.mp4"]).find(entry, "l.csv")


def test_load_list_published_lists_have_their_known_sizes(published: Path) -> None:
    for number, sizes in enumerate([(9537, 3783), (9586, 3734), (9624, 3696)], 1):
        names = [published / "ucf101" / f"{part}list0{number}.txt" for part in ("train", "test")]
        lists = [load_list(str(name)) for name in names]
        assert tuple(len(videos.entries) for videos in lists) == sizes
        for videos, split in zip(lists, ("train", "test"), strict=True):
            assert {entry.split for entry in videos.entries} == {split}
            assert len({entry.label for entry in videos.entries}) == 101
    splits: Counter[str | None] = Counter()
    for path in sorted((published / "hmdb51" / "testTrainMulti_7030_splits").glob("*_split1.txt")):
        videos = load_list(str(path))
        assert videos.format == "HMDB51 split"
        splits.update(entry.split for entry in videos.entries)
    assert splits == {"train": 3570, "test": 1530, UNUSED: 1666}
    kinetics = load_list(str(published / "kinetics" / "kinetics-400_val.csv"))
    assert len({entry.label for entry in kinetics.entries}) == 400
    assert {entry.split for entry in kinetics.entries} == {"val"}
    unlabelled = load_list(str(published / "kinetics" / "kinetics-400_test.csv"))
    assert {entry.label for entry in unlabelled.entries} == {None}
    numbered = load_list(str(published / "kinetics" / "xov_k400_val_with_ids.txt"))
    assert len({entry.label for entry in numbered.entries}) == 400
