"""What is left of a decoder's own message: the sentence that says what is wrong."""

import pytest

from lssl_ray.video.files import first_line


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "[12:01:59] /github/workspace/src/video/video_reader.cc:151: Check failed: "
            "st_nb >= 0 (-1381258232 vs. 0) ERROR cannot find video stream with wanted index: -1\n"
            "\nStack trace returned 7 entries:\n[bt] (0) /libdecord.so(dmlc::StackTrace()+0x50)",
            "cannot find video stream with wanted index: -1",
        ),
        (
            "[12:01:59] /src/video/ffmpeg/threaded_decoder.cc:292: [12:01:59] "
            "/src/video/ffmpeg/threaded_decoder.cc:218: Check failed: "
            "avcodec_send_packet(dec_ctx_.get(), pkt.get()) >= 0 (-1094995529 vs. 0) "
            "Thread worker: Error sending packet.",
            "Thread worker: Error sending packet.",
        ),
        (
            "[12:01:59] /src/video/nvcodec/cuda.cc:4: Check failed: a == b (1 vs. 2) ",
            "Check failed: a == b (1 vs. 2)",
        ),
        (
            "[12:01:59] /src/video/video_reader.cc:571: [/videos/a b.webm] Failed to measure "
            "duration/frame-count due to broken metadata.",
            "Failed to measure duration/frame-count due to broken metadata.",
        ),
        ("Invalid data found when processing input", "Invalid data found when processing input"),
        ("", "RuntimeError"),
    ],
)
def test_first_line_keeps_the_sentence(message: str, said: str) -> None:
    assert first_line(RuntimeError(message)) == said
