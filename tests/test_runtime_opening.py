"""What a command line names: sources with names, and sinks for them."""

import cv2
import numpy as np
import pytest

from runtime.errors import SinkError, SourceError
from runtime.opening import open_feeds, open_targets, refuse_overwriting

DRAWN = "synthetic://?size=64x48&frames=2"
LIVE = "synthetic://?size=64x48&fps=30"


@pytest.fixture
def feeds():
    opened = []

    def open_(*texts, **options):
        opened.extend(open_feeds(texts, **options))
        return list(opened)

    yield open_
    for feed in opened:
        feed.source.close()


def names(feeds):
    return [feed.name for feed in feeds]


def test_one_source_needs_no_name(feeds):
    assert names(feeds(DRAWN)) == [""]


def test_a_name_stands_before_the_uri(feeds):
    assert names(feeds(f"front={DRAWN}", f"back-door={DRAWN}")) == ["front", "back-door"]


def test_several_without_names_get_short_ones_of_their_own(feeds, clip, tmp_path):
    other = tmp_path / "garden.mp4"
    other.write_bytes(clip.read_bytes())
    assert names(feeds(str(clip), str(other), DRAWN)) == [clip.stem, "garden", "synthetic"]


def test_an_equals_sign_in_an_address_or_in_a_file_makes_no_name(feeds, clip, tmp_path):
    file = tmp_path / "a=b.mp4"
    file.write_bytes(clip.read_bytes())
    (feed,) = feeds(str(file))
    assert feed.name == ""


def test_two_sources_of_one_name_are_refused_with_the_way_to_name_them():
    with pytest.raises(SourceError, match=r"2 sources are called synthetic.*--source left="):
        open_feeds([DRAWN, DRAWN])
    with pytest.raises(SourceError, match="called front"):
        open_feeds([f"front={DRAWN}", f"front={DRAWN}"])


def test_a_live_source_beside_a_file_is_refused(clip):
    with pytest.raises(SourceError, match=f"beside the file {clip.stem}.*ffmpeg -re"):
        open_feeds([f"front={LIVE}", str(clip)])


def test_when_one_does_not_open_the_others_are_closed(monkeypatch):
    opened = []

    def open_one(uri, **_):
        if uri == "nothing":
            raise SourceError("no such source", "one", "name one")
        opened.append(uri)
        return type("Source", (), {"live": True, "close": lambda self: opened.remove(uri)})()

    monkeypatch.setattr("runtime.opening.open_source", open_one)
    with pytest.raises(SourceError):
        open_feeds(["a=one", "b=two", "c=nothing"])
    assert opened == []


def test_a_feed_opens_its_source_again(feeds):
    (feed,) = feeds(LIVE)
    again = feed.reopen()
    assert again.size_px == (48, 64)
    again.close()


def test_what_is_asked_of_cameras_reaches_the_source(feeds):
    (feed,) = feeds("synthetic://", size_px=(96, 128), fps=12.5)
    assert (feed.source.size_px, feed.source.fps) == ((96, 128), 12.5)


def test_several_sources_and_one_file_need_a_grid_or_a_file_for_each(feeds, tmp_path):
    two = feeds(f"left={DRAWN}", f"right={DRAWN}")
    with pytest.raises(SinkError, match=r"--grid.*\{source\}"):
        open_targets([str(tmp_path / "out.mp4")], two, grid=False)
    targets = open_targets([str(tmp_path / "out-{source}.mp4")], two, grid=False)
    assert [target.source for target in targets] == ["left", "right"]
    assert "out-left.mp4" in targets[0].sink.description
    (target,) = open_targets([str(tmp_path / "out.mp4")], two, grid=True)
    assert target.source is None


def test_one_sink_twice_is_refused(feeds, tmp_path):
    one = feeds(DRAWN)
    path = str(tmp_path / "out.mp4")
    with pytest.raises(SinkError, match="named twice"):
        open_targets([path, path], one, grid=False)


def test_a_video_gets_the_rate_of_its_source(feeds, clip, tmp_path):
    (target,) = open_targets([str(tmp_path / "out.mp4")], feeds(str(clip)), grid=False)
    assert "12.5 fps" in target.sink.description


def test_a_grid_of_files_has_a_picture_for_each_frame_and_one_of_cameras_the_pace_of_the_fastest(
    feeds, clip, tmp_path
):
    two = feeds(f"left={clip}", f"right={clip}")
    (target,) = open_targets([str(tmp_path / "out.mp4")], two, grid=True)
    assert "25 fps" in target.sink.description
    cameras = open_feeds([f"left={LIVE}", "right=synthetic://?size=64x48&fps=10"])
    (target,) = open_targets([str(tmp_path / "out.mp4")], cameras, grid=True)
    assert "30 fps" in target.sink.description


def refuse(feeds, *sinks, grid=False, **results):
    refuse_overwriting(feeds, [str(sink) for sink in sinks], grid=grid, **results)


@pytest.fixture
def two_clips(clip, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    return tmp_path


def test_a_result_never_takes_the_place_of_its_source(feeds, clip):
    one = feeds(f"front={clip}")
    with pytest.raises(SinkError, match="write over the source"):
        refuse(one, clip)
    with pytest.raises(SinkError, match="write over the source"):
        refuse(one, "none", clip.parent)
    refuse(one, clip.parent / "other.mp4", clip.parent / "new/", "display://0", "udp://host:1")


@pytest.mark.parametrize("source", ["a.mp4", "file://{folder}/a.mp4", "{folder}/a.mp4", "./a.mp4"])
@pytest.mark.parametrize(
    "sink",
    [
        *(
            "a.mp4",
            "a.mp4?codec=mp4v",
            "file://{folder}/a.mp4",
            "file://{folder}/a.mp4?codec=avc1",
        ),
        *("FILE://{folder}/a.mp4", "link.mp4", "../{name}/a.mp4", "."),
    ],
)
def test_a_source_is_known_however_it_and_the_sink_are_written(
    feeds, two_clips, monkeypatch, source, sink
):
    monkeypatch.chdir(two_clips)
    (two_clips / "link.mp4").symlink_to("a.mp4")
    source, sink = (text.format(folder=two_clips, name=two_clips.name) for text in (source, sink))
    with pytest.raises(SinkError, match=r"would write over the source .*a\.mp4"):
        refuse(feeds(source), sink)


def test_a_sink_that_is_named_after_its_source_is_refused(feeds, two_clips):
    two = feeds(str(two_clips / "a.mp4"), str(two_clips / "b.mp4"))
    with pytest.raises(SinkError, match="over the source"):
        refuse(two, two_clips / "{source}.mp4")
    refuse(two, two_clips / "{source}-night.mp4")


def test_no_file_of_a_folder_or_of_a_pattern_is_written_over(feeds, two_clips):
    for name in ("x/1.png", "y/1.png"):
        (two_clips / "pics" / name).parent.mkdir(parents=True)
        cv2.imwrite(str(two_clips / "pics" / name), np.zeros((8, 8, 3), np.uint8))
    videos = feeds(str(two_clips))
    with pytest.raises(SinkError, match="over the source"):
        refuse(videos, two_clips / "b.mp4")
    refuse(videos, two_clips / "c.mp4")
    (nested,) = open_feeds([str(two_clips / "pics" / "**" / "*.png")])
    for folder in ("pics", "pics/x"):
        with pytest.raises(SinkError, match=r"over the source .*1\.png"):
            refuse([nested], two_clips / folder)
    refuse([nested], two_clips / "out")


def test_two_spellings_of_one_sink_are_one_sink(feeds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SinkError, match="named twice"):
        refuse(feeds(DRAWN), "out.mp4", f"file://{tmp_path}/out.mp4")


def test_statistics_are_written_over_no_source_no_sink_and_no_model(feeds, two_clips):
    one, model = feeds(str(two_clips / "a.mp4")), two_clips / "m.onnx"
    model.write_bytes(b"a model")
    (two_clips / "link.jsonl").symlink_to(model)
    for stats, told in (
        ("a.mp4", "over the source"),
        ("m.onnx", "over the model"),
        ("link.jsonl", "over the model"),
        ("out.mp4", r"the sink .*out\.mp4 are one file"),
    ):
        with pytest.raises(SinkError, match=told):
            refuse(one, two_clips / "out.mp4", model=model, stats=two_clips / stats)
    refuse(one, two_clips / "out.mp4", model=model, stats=two_clips / "s.jsonl")


@pytest.mark.parametrize("password", ["SEC[RET", "SECRET\u2100x", "SEC]RET"])
def test_a_password_with_odd_characters_is_no_traceback_and_is_not_told(password):
    uri = f"rtsp://user:{password}@127.0.0.1:1/x"
    with pytest.raises(SourceError, match="nobody listens there") as caught:
        open_feeds([uri, DRAWN])
    assert password not in str(caught.value)
    slipped = f"rtsp:/user:{password}@camera"
    with pytest.raises(SourceError, match="2 sources are called") as caught:
        open_feeds([slipped, slipped])
    assert password not in str(caught.value)
