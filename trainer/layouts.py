"""Pictures on disk: which layout a folder has, which files make a pair, what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from trainer.errors import DataError
from trainer.images import SUFFIXES, Image, read_image

HELD_OUT_NAMES = ("val", "test")
_ENDINGS = (("A", "B"), ("_A", "_B"), ("_label", "_img"))
"""Of two folders beside each other, such as trainA/ + trainB/ or train_label/ + train_img/."""
_BY_ORDER = ("_B", "_img")
"""Endings of pix2pixHD, whose own loader pairs files of different name by their order."""
_ACCEPTED = (
    "side-by-side pictures in it or in train/, A/ + B/, A/train/ + B/train/, trainA/ + trainB/, "
    "train_A/ + train_B/, or train_label/ + train_img/"
)
_LABEL_IDS_BELOW = 64
"""A grey picture that never reaches this level is taken for label ids (Cityscapes: 0 to 33)."""


@dataclass(frozen=True)
class PairFile:
    """One pair on disk: two files, or one file whose left half is A and right half is B."""

    a: Path
    b: Path | None

    def read(self, direction: str) -> tuple[Image, Image]:
        """(input, target) at the size that they have on disk.

        Raises:
            DataError: damaged, of odd width, or two pictures of different size.
        """
        image = read_image(self.a)
        if self.b is None:
            width = image.shape[1]
            if width % 2:
                raise DataError(
                    f"{self.a} is {width} pixels wide",
                    "an even width: A in the left half, B in the right half",
                    "put A and B into two folders A/ and B/, or crop it to an even width",
                )
            a, b = image[:, : width // 2], image[:, width // 2 :]
        else:
            a, b = image, read_image(self.b)
            if a.shape != b.shape:
                raise DataError(
                    f"{self.a} is {a.shape[1]}x{a.shape[0]} and "
                    f"{self.b} is {b.shape[1]}x{b.shape[0]}",
                    "two pictures of the same size, one pixel on the other",
                    "resize one to the other, or take the pair out",
                )
        return (a, b) if direction == "AtoB" else (b, a)


@dataclass(frozen=True)
class FoundPairs:
    """The pairs of one part of a data set (all of it, training, or held out)."""

    files: list[PairFile]
    place: str
    """The folder or the two folders, in words."""
    remarks: tuple[str, ...] = ()
    """What the user should know about how they were read, a clause each."""


@dataclass(frozen=True)
class FoundPhotos:
    """The plain photos of one part of a data set."""

    files: list[Path]
    root: Path
    """The folder that they are named from."""
    remarks: tuple[str, ...] = ()
    """What the user should know about how they are read, a clause each."""


# ------------------------------------------------------------------------------------ pairs


def find_pair_files(folder: Path) -> list[PairFile]:
    """The pairs of one folder, sorted: `A/` + `B/` inside it, or side-by-side pictures in it.

    Raises:
        DataError: no such folder, no pictures, or a picture without its other half.
    """
    return find_pairs_in(folder).files


def find_pairs_in(folder: Path) -> FoundPairs:
    """As `find_pair_files`, with the remarks."""
    _refuse_what_is_no_folder(folder)
    found = _pairs_in(folder)
    if found is None:
        raise _nothing_in(folder)
    return found


def has_pairs(folder: Path) -> bool:
    """Whether a folder itself holds side-by-side pictures, or `A/` + `B/` with pictures."""
    places = [folder, folder / "A"] if (folder / "B").is_dir() else [folder]
    return any(pictures_in(place) for place in places)


def find_train_and_held_out(folder: Path) -> tuple[FoundPairs, FoundPairs | None]:
    """Training and held-out pairs of a data set, in the first layout that its folders fit.

    The held-out part is `val`, else `test`, in any layout; None where there is neither. A folder
    that is itself called `train` has its `val` or `test` beside it.

    Raises:
        DataError: see `find_pair_files`.
    """
    _refuse_what_is_no_folder(folder)
    train = _phase(folder, "train") or _pairs_in(folder)
    if train is None:
        raise _nothing_in(folder / "train" if (folder / "train").is_dir() else folder)
    is_train = folder.name == "train" and not (folder / "train").is_dir()
    root = folder.parent if is_train else folder
    for name in HELD_OUT_NAMES:
        if held_out := _phase(root, name):
            return train, held_out
        if (root / name).is_dir():
            raise _nothing_in(root / name)
    return train, None


def _phase(root: Path, phase: str) -> FoundPairs | None:
    """The pairs of `phase` (train, val or test) in whichever layout `root` has."""
    if (root / phase).is_dir() and (found := _pairs_in(root / phase)):
        return found
    if (found := _two_folders(root / "A" / phase, root / "B" / phase)) is not None:
        return found
    for end_a, end_b in _ENDINGS:
        folders = root / f"{phase}{end_a}", root / f"{phase}{end_b}"
        if (found := _two_folders(*folders, by_order=end_b in _BY_ORDER)) is not None:
            if (root / f"{phase}_inst").is_dir():
                unused = f"{phase}_inst/ (instance maps) is not used"
                return FoundPairs(found.files, found.place, (*found.remarks, unused))
            return found
    return None


def _pairs_in(folder: Path) -> FoundPairs | None:
    """`A/` + `B/` inside a folder, or side-by-side pictures in it."""
    if found := _two_folders(folder / "A", folder / "B"):
        return found
    if not (pictures := pictures_in(folder)):
        return None
    if partner := _partner_of(folder):
        raise DataError(
            f"{folder} is one half of the pairs, {partner} is the other",
            "the folder that holds both",
            f"name {folder.parent}",
        )
    return FoundPairs([PairFile(path, None) for path in pictures], str(folder), _halves(pictures))


def _two_folders(folder_a: Path, folder_b: Path, by_order: bool = False) -> FoundPairs | None:
    if not (folder_a.is_dir() and folder_b.is_dir()):
        return None
    a, b = by_stem(folder_a), by_stem(folder_b)
    if not a and not b:
        if any((folder_a / phase).is_dir() for phase in ("train", *HELD_OUT_NAMES)):
            return None  # A/train/ + B/train/, which are looked at elsewhere
        raise DataError(
            f"no pictures in {folder_a} and {folder_b}",
            f"pictures of the same name in both ({', '.join(SUFFIXES)})",
            "put the pairs there",
        )
    files, remarks = _match(folder_a, a, folder_b, b, by_order)
    place = f"{folder_a} and {folder_b}"
    return FoundPairs(files, place, remarks + _label_ids(folder_a, files[0].a))


def _match(
    folder_a: Path, a: dict[str, Path], folder_b: Path, b: dict[str, Path], by_order: bool
) -> tuple[list[PairFile], tuple[str, ...]]:
    """Pairs by name, else by name without the folders' endings, else by order where allowed."""
    if set(a) == set(b):
        return [PairFile(a[stem], b[stem]) for stem in sorted(a)], ()
    end_a, end_b = _common_ending(a), _common_ending(b)
    short_a = {stem.removesuffix(end_a): path for stem, path in a.items()}
    short_b = {stem.removesuffix(end_b): path for stem, path in b.items()}
    if set(short_a) == set(short_b):
        remark = f"paired by name without {' and '.join(filter(None, (end_a, end_b)))}"
        return [PairFile(short_a[stem], short_b[stem]) for stem in sorted(short_a)], (remark,)
    disjoint = set(short_a).isdisjoint(short_b)
    if by_order and disjoint and len(a) == len(b):
        files = [PairFile(a[x], b[y]) for x, y in zip(sorted(a), sorted(b), strict=True)]
        first = files[0]
        names = f"{first.a.name} goes with {first.b.name}" if first.b else ""
        return files, (f"the names differ, so they are paired by their order: {names}",)
    if disjoint:
        raise DataError(
            f"no picture of {folder_a} ({len(a)}) is named as one of {folder_b} ({len(b)})",
            "two pictures of the same name for each pair",
            "rename them; unpaired pictures are for CycleGAN, not for pix2pix",
        )
    lonely = sorted(set(short_a) ^ set(short_b))
    path = short_a.get(lonely[0]) or short_b[lonely[0]]
    others = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
    missing, ending = (folder_b, end_b) if lonely[0] in short_a else (folder_a, end_a)
    raise DataError(
        f"{path}{others} has no partner",
        f"a picture named {lonely[0]}{ending} in {missing}",
        "add it or take the lonely one out",
    )


def _common_ending(stems: dict[str, Path]) -> str:
    """What all names end with, from a separator on: `_leftImg8bit`; empty for a single name."""
    if len(stems) < 2:
        return ""
    from_the_end = zip(*(stem[::-1] for stem in stems), strict=False)
    same = takewhile(lambda letters: len(set(letters)) == 1, from_the_end)
    ending = "".join(letters[0] for letters in same)[::-1]
    starts = [ending.find(separator) for separator in "_-. " if separator in ending]
    return ending[min(starts) :] if starts else ""


def _partner_of(folder: Path) -> Path | None:
    """The other folder of a pair of folders, such as trainB beside trainA."""
    for end_a, end_b in _ENDINGS:
        for mine, other in ((end_a, end_b), (end_b, end_a)):
            stem = folder.name.removesuffix(mine)
            known = stem in ("train", *HELD_OUT_NAMES) or (stem == "" and mine in "AB")
            partner = folder.with_name(stem + other)
            if folder.name.endswith(mine) and known and partner.is_dir():
                return partner
    return None


# ----------------------------------------------------------------------------------- remarks


def _halves(pictures: Sequence[Path]) -> tuple[str, ...]:
    """A remark where side-by-side pictures look like plain ones, which would be cut in two."""
    image = _readable(pictures[0])
    if image is None or image.shape[1] >= 1.9 * image.shape[0]:
        return ()
    height, width = image.shape[:2]
    return (
        f"{pictures[0].name} is {width}x{height}, so each half is {width // 2}x{height}: if these "
        "are plain photos, choose a --task",
    )


def _two_in_one(first: Path) -> tuple[str, ...]:
    """A remark where photos look like side-by-side pairs, whose middle is half of each."""
    image = _readable(first)
    if image is None or image.shape[1] != 2 * image.shape[0]:
        return ()
    return (f"{first.name} is twice as wide as high: if these are pairs, leave --task out",)


def _label_ids(folder: Path, first: Path) -> tuple[str, ...]:
    image = _readable(first)
    if image is None or image.max() >= _LABEL_IDS_BELOW or image.max() == 0:
        return ()
    if (image != image[..., :1]).any():
        return ()
    return (
        f"{folder.name}/ looks like label ids (grey levels up to {image.max()}), which are taken "
        "as grey levels, nearly black: give labels in distinct colours",
    )


def _readable(path: Path) -> Image | None:
    """A picture, or None: a damaged one is told when all are read."""
    try:
        return read_image(path)
    except DataError:
        return None


# ------------------------------------------------------------------------------------ photos


def find_photos(folder: Path) -> tuple[FoundPhotos, FoundPhotos | None]:
    """Training and held-out photos: those in `train/` and `val/` or `test/`, else all of a folder.

    Folders inside are searched too. A folder that is itself called `train` has its `val` or
    `test` beside it.

    Raises:
        DataError: no such folder, no pictures, or two folders of pairs.
    """
    _refuse_what_is_no_folder(folder)
    for end_a, end_b in (("A", "B"), *((f"train{a}", f"train{b}") for a, b in _ENDINGS)):
        if (folder / end_a).is_dir() and (folder / end_b).is_dir():
            raise DataError(
                f"{folder} holds pairs: {end_a}/ and {end_b}/",
                "a folder of plain photos, since --task makes the input of each photo",
                f"name one of the two, such as {folder / end_b}, or leave --task out",
            )
    train = folder / "train" if (folder / "train").is_dir() else folder
    root = train.parent if train.name == "train" else train
    held_out = next((root / n for n in HELD_OUT_NAMES if (root / n).is_dir()), None)
    if held_out is None:
        return photos_in(train), None
    return photos_in(train, without=held_out), photos_in(held_out)


def photos_in(folder: Path, without: Path | None = None) -> FoundPhotos:
    """All pictures in a folder and the folders inside it, sorted; hidden ones are left out.

    Args:
        folder: where to look.
        without: a folder inside it that is not looked into.

    Raises:
        DataError: no such folder, or no pictures.
    """
    _refuse_what_is_no_folder(folder)
    photos = sorted(
        path
        for path in folder.rglob("*")
        if _is_picture(path)
        and without not in path.parents
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not photos:
        raise DataError(
            f"no photos in {folder}: it holds {_listing(folder)}",
            f"pictures ({', '.join(SUFFIXES)}), in it or in folders inside it",
            "name the folder that holds them",
        )
    return FoundPhotos(photos, folder, _two_in_one(photos[0]))


# ------------------------------------------------------------------------------------- common


def pictures_in(folder: Path) -> list[Path]:
    """The pictures right in a folder, sorted; hidden ones (`._1.jpg` of macOS) are left out.

    Empty where there is no such folder.
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _is_picture(path))


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures right in a folder by their names without the suffix, sorted.

    Raises:
        DataError: two pictures of one name, such as 1.jpg and 1.png.
    """
    found: dict[str, Path] = {}
    for path in pictures_in(folder):
        if path.stem in found:
            raise DataError(
                f"{found[path.stem].name} and {path.name} in {folder}",
                "one picture of each name, since pairs are found by name",
                "take one of them out",
            )
        found[path.stem] = path
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _refuse_what_is_no_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = f"{folder} is a file" if folder.exists() else f"no such folder: {folder}"
        raise DataError(
            what,
            f"a folder of pairs: {_ACCEPTED}",
            "name it, or leave DATA out to train on drawn street scenes",
        )


def _nothing_in(folder: Path) -> DataError:
    return DataError(
        f"no pairs in {folder}: it holds {_listing(folder)}",
        f"{_ACCEPTED}; pictures are {', '.join(SUFFIXES)}",
        "name the folder that holds them, or choose a --task for plain photos",
    )


def _listing(folder: Path) -> str:
    """What is right in a folder: `trainA/, 3 files (.txt, .gif)`."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [f"{path.name}/" for path in entries if path.is_dir()]
    if len(folders) > 6:
        folders = [*folders[:5], f"{len(folders) - 5} more folders"]
    files = [path for path in entries if not path.is_dir()]
    if files:
        kinds = sorted({path.suffix or path.name for path in files})
        shown = ", ".join(kinds[:5]) + (", ..." if len(kinds) > 5 else "")
        folders.append(f"{len(files)} file{'s' if len(files) > 1 else ''} ({shown})")
    return ", ".join(folders) or "nothing"
