"""`p2p-pairs timelapse`: one drawn fixed camera, shaken, mixed and dated as webcams are."""

from __future__ import annotations

import csv
import os
import shutil
import struct
from datetime import datetime, timezone

import cv2
import numpy as np
import pytest
from commands import done, refused

from trainer.contact_sheet import Entry, draw_pages
from trainer.data import open_data
from trainer.pairs_cli import pairs
from trainer.scenes import draw_pair
from trainer.timelapse import cut_to_fit
from trainer.timelapse_light import emptiness_of
from trainer.timelapse_match import find_repeats, match_nearest, split_by_date
from trainer.timelapse_read import BY_EXIF, BY_FILE, BY_NAME, date_in, date_of
from trainer.timelapse_register import Reference, displacement_px, field_of, scaled

HEIGHT, WIDTH = 144, 256
HOUR = 3600.0


@pytest.fixture(scope="module")
def scenes():
    """(day, night) of three cameras; the first is the one whose folder it is."""
    return [draw_pair(seed, HEIGHT, WIDTH) for seed in (4, 11, 23)]


def moved(image, x=0.0, y=0.0, turn_deg=0.0):
    motion = cv2.getRotationMatrix2D(((WIDTH - 1) / 2, (HEIGHT - 1) / 2), turn_deg, 1.0)
    motion[:, 2] += x, y
    return cv2.warpAffine(
        image, motion, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )


def taken(image, number):
    """Another exposure of the same view: gain, noise and something that passes by."""
    rng = np.random.default_rng(number)
    result = image.astype(np.float32) * rng.uniform(0.93, 1.07)
    x, y = rng.integers(20, WIDTH - 60), rng.integers(HEIGHT // 2, HEIGHT - 30)
    result[y : y + 12, x : x + 26] = rng.uniform(20, 120, 3)
    return np.clip(result + rng.normal(0, 1.5, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def webcam(scenes, tmp_path_factory):
    """Four days of a webcam with all that goes wrong: (folder, good names, name -> what it is)."""
    folder = tmp_path_factory.mktemp("webcam")
    (day, night), (other_day, other_night), _ = scenes
    good: dict[str, str] = {}
    bad: dict[str, str] = {}
    count = 0

    def put(date, hour, image, what, kinds):
        nonlocal count
        count += 1
        name = f"cam_201511{date:02d}_{hour:02d}{count % 60:02d}00.png"
        cv2.imwrite(str(folder / name), image)
        kinds[name] = what

    for date in (2, 3, 4, 5):
        for hour in (10, 12, 14):
            put(date, hour, taken(day, count), "day", good)
        for hour in (20, 22, 23):
            put(date, hour, taken(night, count), "night", good)
    put(2, 11, moved(taken(day, 90), 6.4, -3.6), "day", good)
    put(3, 21, moved(taken(night, 91), -5.2, 4.1, 1.0), "night", good)
    put(3, 11, taken(other_day, 92), "another view", bad)
    put(4, 21, taken(other_night, 93), "another view", bad)
    put(3, 13, cv2.GaussianBlur(taken(day, 94), (0, 0), 2.0), "blurred", bad)
    put(4, 19, cv2.GaussianBlur(taken(night, 95), (0, 0), 2.0), "blurred", bad)
    put(4, 18, np.full_like(day, 3), "black", bad)
    put(4, 9, np.full_like(day, 246), "washed out", bad)
    put(4, 17, cv2.addWeighted(day, 0.45, night, 0.55, 0), "dusk", bad)
    frozen = cv2.imread(str(folder / next(name for name in good if "_1003" not in name)))
    put(5, 15, frozen, "repeat", bad)
    put(5, 8, cv2.resize(day, (WIDTH // 2, HEIGHT // 2)), "another size", bad)
    put(5, 9, day, "damaged", bad)
    cut = folder / next(name for name, what in bad.items() if what == "damaged")
    cut.write_bytes(cut.read_bytes()[:3000])
    return folder, good, bad


@pytest.fixture(scope="module")
def made(webcam, tmp_path_factory):
    """(OUT, what was said, rows of the manifest, file -> reason of what was dropped)."""
    out = tmp_path_factory.mktemp("made") / "pairs"
    said = done(
        pairs, "timelapse", webcam[0], out, "--val", "0.25", "--max-gap", "2", "--format", "png"
    )
    return (
        out,
        said,
        rows(out / "manifest.csv"),
        {row["file"]: row["reason"] for row in rows(out / "dropped.csv")},
    )


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_pair_has_a_day_left_and_a_night_right_of_the_same_camera(webcam, made):
    _, good, _ = webcam
    _, _, manifest, _ = made
    assert len(manifest) >= 12
    assert {good.get(row["day"]) for row in manifest} == {"day"}
    assert {good.get(row["night"]) for row in manifest} == {"night"}


def test_what_is_dropped_is_dropped_for_its_own_reason(webcam, made):
    _, _, bad = webcam
    _, said, _, dropped = made
    assert {name: dropped.get(name) for name in bad} == bad
    assert "2 another view" in said


def test_every_good_picture_is_paired_or_only_lacks_a_partner(webcam, made):
    _, good, _ = webcam
    _, _, manifest, dropped = made
    used = {row["day"] for row in manifest} | {row["night"] for row in manifest}
    assert all(name in used or dropped[name] == "no partner left" for name in good)


def test_no_picture_of_val_is_in_train_and_val_is_later(made):
    _, _, manifest, _ = made
    halves = {
        split: [r for r in manifest if r["file"].startswith(split)] for split in ("train", "val")
    }
    pictures = {s: {r[k] for r in half for k in ("day", "night")} for s, half in halves.items()}
    assert pictures["train"]
    assert pictures["val"]
    assert not pictures["train"] & pictures["val"]
    assert max(pictures["train"]) < min(pictures["val"])


def test_a_shaken_night_lies_on_its_day_and_the_uncovered_border_is_cut_off(scenes, made):
    out, _, manifest, _ = made
    day, night = scenes[0]
    shaken = [row for row in manifest if abs(float(row["shift_x_px"])) > 2]
    assert shaken, "the two moved pictures found partners"
    for row in shaken:
        pair = cv2.imread(str(out / row["file"]))
        half = pair.shape[1] // 2
        assert half < WIDTH
        assert half / pair.shape[0] == pytest.approx(WIDTH / HEIGHT, rel=0.02)
        left, right = pair[:, :half], pair[:, half:]
        # Where the left half lies in the unmoved day, the right half lies in the unmoved night.
        places = [best_place(part, whole) for part, whole in ((left, day), (right, night))]
        assert np.hypot(*(np.subtract(*places))) <= 1.0


def best_place(part, whole):
    large = cv2.copyMakeBorder(whole, 16, 16, 16, 16, cv2.BORDER_REFLECT_101)
    inner = part[12:-12, 12:-12]
    return cv2.minMaxLoc(cv2.matchTemplate(large, inner, cv2.TM_CCOEFF_NORMED))[3]


def test_an_unmoved_pair_keeps_every_pixel_of_its_pictures(webcam, made):
    out, _, manifest, _ = made
    still = next(r for r in manifest if float(r["shift_x_px"]) == float(r["turn_deg"]) == 0)
    pair = cv2.imread(str(out / still["file"]))
    halves = [cv2.imread(str(webcam[0] / still[half])) for half in ("day", "night")]
    np.testing.assert_array_equal(pair, np.hstack(halves))


def test_the_trainer_reads_what_was_written(made):
    out, _, manifest, _ = made
    split = open_data(str(out), "AtoB")
    assert len(split.train) + len(split.held_out) == len(manifest)
    day, night = split.train.pair(0, 64)
    assert day.mean() > night.mean()


def test_the_contact_sheet_shows_all_pairs(made):
    out, _, manifest, _ = made
    pages = sorted((out / "contact_sheet").iterdir())
    assert len(pages) == -(-len(manifest) // 18)
    assert cv2.imread(str(pages[0])).shape[1] > 1000


def test_an_earlier_run_is_replaced_only_when_asked_and_as_a_whole(webcam, made, tmp_path):
    folder, _, _ = webcam
    out = tmp_path / "out"
    shutil.copytree(made[0], out)
    assert "--overwrite" in refused(pairs, "timelapse", folder, out)
    (out / "train" / "mine.txt").write_text("stays")
    done(pairs, "timelapse", folder, out, "--overwrite", "--per-night", "1", "--val", "0")
    listed = {row["file"] for row in rows(out / "manifest.csv")}
    there = {
        p.relative_to(out).as_posix() for p in out.glob("*/*") if p.parent.name in ("train", "val")
    }
    assert there == listed | {"train/mine.txt"}


@pytest.mark.parametrize("half", [0, 1])
def test_a_folder_of_one_half_only_is_refused(scenes, tmp_path, half):
    for number in range(8):
        dull = 0.75 if number % 2 else 1.0
        image = (taken(scenes[0][half], number) * dull).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"20200101_{number:02d}0000.png"), image)
    line = refused(pairs, "timelapse", tmp_path, tmp_path.parent / f"out{half}")
    assert "days and nights" in line


def test_days_and_nights_of_two_cameras_make_no_pair(scenes, tmp_path):
    for number in range(5):
        for hour, image in ((12, scenes[0][0]), (23, scenes[1][1])):
            path = tmp_path / f"2020010{number + 1}_{hour}0000.png"
            cv2.imwrite(str(path), taken(image, number + hour))
    out = tmp_path.parent / "two"
    assert "days and nights" in refused(pairs, "timelapse", tmp_path, out)
    assert not out.exists()


def test_a_night_too_far_away_is_no_partner(scenes, tmp_path):
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"20200101_1{number}0000.png"), taken(scenes[0][0], number))
        cv2.imwrite(str(tmp_path / f"20200301_2{number}0000.png"), taken(scenes[0][1], number))
    line = refused(pairs, "timelapse", tmp_path, tmp_path.parent / "far", "--max-gap", "5")
    assert "--max-gap" in line


def test_a_video_gives_pairs_by_position(scenes, tmp_path):
    path = tmp_path / "lapse.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (WIDTH, HEIGHT))
    for number in range(48):
        image = scenes[0][1 if number // 8 % 2 else 0]
        writer.write(taken(image, number))
    writer.release()
    said = done(pairs, "timelapse", path, tmp_path / "out", "--every", "0.2", "--size", "128x72")
    assert "24 frames" in said
    manifest = rows(tmp_path / "out" / "manifest.csv")
    assert len(manifest) >= 8
    for row in manifest:
        assert int(float(row["day"].split()[0]) * 10) // 8 % 2 == 0
        assert int(float(row["night"].split()[0]) * 10) // 8 % 2 == 1
        assert cv2.imread(str(tmp_path / "out" / row["file"])).shape == (72, 256, 3)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("nowhere", "is no folder"), ("empty", "no pictures in"), ("text.mp4", "gives no frame")],
)
def test_a_source_that_gives_nothing_is_named(tmp_path, name, problem):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    line = refused(pairs, "timelapse", tmp_path / name, tmp_path / "out")
    assert problem in line
    assert name in line


def test_out_inside_the_source_is_refused(webcam):
    assert "lies in SOURCE" in refused(pairs, "timelapse", webcam[0], webcam[0] / "pairs")


# --------------------------------------------------------------------------------- parts


def seconds(*parts):
    return datetime(*parts, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20151102_060150", (2015, 11, 2, 6, 1, 50)),
        ("IMG_20151102_060150", (2015, 11, 2, 6, 1, 50)),
        ("2015-11-02_06-01-50", (2015, 11, 2, 6, 1, 50)),
        ("2015-11-02T06:01:50", (2015, 11, 2, 6, 1, 50)),
        ("cam 2015-11-02 06.01.50 (2)", (2015, 11, 2, 6, 1, 50)),
        ("20151102060150123", (2015, 11, 2, 6, 1, 50)),
        ("2015/11/02/06-01", (2015, 11, 2, 6, 1, 0)),
        ("snap_20151102", (2015, 11, 2, 0, 0, 0)),
        ("1446444110", (2015, 11, 2, 6, 1, 50)),
        ("snap-1446444110500-a", (2015, 11, 2, 6, 1, 50.5)),
    ],
)
def test_dates_are_read_from_names(text, expected):
    *whole, last = expected
    assert date_in(text) == seconds(*whole) + last


@pytest.mark.parametrize("text", ["DSC_0042", "20159999_999999", "frame-000123", "1920x1080"])
def test_digits_that_are_no_date_are_none(text):
    assert date_in(text) is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_comes_before_the_name_and_the_name_before_the_file(scenes, tmp_path, order):
    path = tmp_path / "20200101_000000.jpg"
    cv2.imwrite(str(path), scenes[0][0])
    assert date_of(path, path.name) == (seconds(2020, 1, 1), BY_NAME)
    tag = struct.pack(order + "HHHIII", 1, 0x8769, 4, 1, 26, 0)
    inner = struct.pack(order + "HHHIII", 1, 0x9003, 2, 20, 44, 0)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    block = b"Exif\0\0" + head + tag + inner + b"2015:11:02 06:01:50\0"
    jpeg = path.read_bytes()
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:])
    assert date_of(path, path.name) == (seconds(2015, 11, 2, 6, 1, 50), BY_EXIF)
    undated = path.with_name("snap.png")
    cv2.imwrite(str(undated), scenes[0][0])
    os.utime(undated, (7e8, 7e8))
    assert date_of(undated, undated.name) == (7e8, BY_FILE)


@pytest.mark.parametrize(("x", "y", "turn_deg"), [(0, 0, 0), (7.3, -4.6, 0), (-6.5, 3.2, 1.0)])
def test_a_night_is_registered_to_its_day_within_a_pixel(scenes, x, y, turn_deg):
    day, night = scenes[0]
    greys = [cv2.cvtColor(i, cv2.COLOR_BGR2GRAY) for i in (day, moved(night, x, y, turn_deg))]
    fit = Reference(field_of(greys[0])).fit(field_of(greys[1]), 12.0)
    assert fit.same_view
    true = cv2.getRotationMatrix2D(((WIDTH - 1) / 2, (HEIGHT - 1) / 2), turn_deg, 1.0)
    true[:, 2] += x, y
    apart = np.abs(np.subtract(displacement_px(fit.motion, (HEIGHT, WIDTH))[:2], (x, y)))
    assert apart.max() < 0.6
    assert fit.motion[:, :2] == pytest.approx(true[:, :2], abs=0.006)


def test_other_views_are_told_apart(scenes):
    reference = Reference(field_of(cv2.cvtColor(scenes[0][0], cv2.COLOR_BGR2GRAY)))
    for other in scenes[1:]:
        for image in other:
            fit = reference.fit(field_of(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)), 12.0)
            assert not fit.same_view


def test_a_motion_scales_with_the_picture():
    motion = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
    np.testing.assert_allclose(scaled(motion, 4.0)[:, 2], [8.0, -4.0])
    turn = cv2.getRotationMatrix2D((31.5, 17.5), 2.0, 1.0)
    np.testing.assert_allclose(
        scaled(turn, 2.0), cv2.getRotationMatrix2D((63.5, 35.5), 2.0, 1.0), atol=1e-9
    )


def test_the_cut_shows_only_what_both_pictures_show():
    day = np.zeros((90, 160, 3), np.uint8)
    day[..., 0], day[..., 1] = np.arange(160), np.arange(90)[:, None]
    motion = np.array([[1.0, 0.0, 7.0], [0.0, 1.0, -3.0]])  # a day's pixel lies 7 right, 3 up
    night = cv2.warpAffine(day, motion, (160, 90), borderValue=(255, 255, 255))
    left, right = cut_to_fit(day, night, motion)
    assert left.shape == right.shape
    np.testing.assert_array_equal(left, right)
    assert left.shape[0] >= 85


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.full((90, 160), 5, np.uint8), "black"),
        (np.full((90, 160), 128, np.uint8), "washed out"),
        (np.tile(np.linspace(215, 255, 160), (90, 1)).astype(np.uint8), "washed out"),
        (np.tile(np.linspace(0, 255, 160), (90, 1)).astype(np.uint8), None),
    ],
)
def test_pictures_of_nothing_are_named(image, why):
    assert emptiness_of(image) == why


def test_a_dark_night_with_a_few_lamps_is_not_black():
    night = np.full((90, 160), 2, np.uint8)
    night[40:46, 60:80] = 220
    assert emptiness_of(night) is None


def test_a_frozen_picture_is_a_repeat_and_a_passing_car_is_not(scenes):
    grey = cv2.cvtColor(scenes[0][1], cv2.COLOR_BGR2GRAY)
    car = grey.copy()
    car[100:108, 40:60] = 200
    assert find_repeats([grey, car, grey.copy(), car.copy()]) == {2: 0, 3: 1}


def test_each_picture_gets_a_partner_before_any_gets_a_second():
    days = {0: 0.0, 1: 1.0, 2: 2.0}
    nights = {0: 3.0, 1: 9.0}
    assert match_nearest(days, nights, 100.0, 1, 2) == [(0, 0), (1, 1), (2, 0)]
    assert match_nearest(days, nights, 100.0, 1, 1) == [(1, 1), (2, 0)]
    assert match_nearest(days, nights, 1.5, 1, 2) == [(2, 0)]
    assert len(match_nearest(days, nights, 100.0, 2, 3)) == 6


def test_the_last_days_are_held_out_from_a_dawn_on():
    days = {n: (24 * n + 12) * HOUR for n in range(10)}
    nights = {n: (24 * n + 23) * HOUR for n in range(10)}

    def match(some_days, some):
        return match_nearest(some_days, some, 48 * HOUR, 1, 2)

    train, val, _ = split_by_date(days, nights, match, 0.2)
    assert {day for day, _ in val} == {8, 9} == {night for _, night in val}
    assert {day for day, _ in train} == set(range(8))


def test_without_a_dawn_between_the_last_pictures_are_held_out():
    days = {n: n * HOUR for n in range(10)}
    nights = {n: (12 + n) * HOUR for n in range(10)}

    def match(some_days, some):
        return match_nearest(some_days, some, 48 * HOUR, 1, 1)

    train, val, note = split_by_date(days, nights, match, 0.2)
    assert {day for day, _ in val} == {8, 9}
    assert not {night for _, night in val} & {night for _, night in train}
    assert len(train) == 8
    assert "no dawn" in note


def test_pages_hold_as_many_pictures_as_they_have_room_for():
    entries = (Entry(np.full((20, 60, 3), 200, np.uint8), f"pair {n}") for n in range(7))
    pages = list(draw_pages(entries, columns=2, rows=2, tile_px=120))
    assert len(pages) == 2
    assert pages[0].shape[1] == 2 * 126 + 6
    assert (pages[0] == 200).any()
