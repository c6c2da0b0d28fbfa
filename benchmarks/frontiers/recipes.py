"""What the frontier compares: generators as recipes, sets of pairs, and cameras held out."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from runtime.errors import UserError
from runtime.files import write_error
from trainer.data import open_pairs
from trainer.layouts import HELD_OUT_NAMES, PairFile, find_train_and_held_out

SCENES = "scenes"
BATCH_SIZE = 4
_NAME = re.compile(r"[\w.+-]+")
_CAMERA = re.compile(r"[^_-]+")
"""The start of a file's name that tells its camera: `cam10` of `cam10_20151102.jpg`."""


@dataclass(frozen=True)
class Recipe:
    """A generator, and the options of `p2p-train` that make it."""

    name: str
    options: tuple[str, ...]
    usual: bool = True
    """Trained where none is named."""


RECIPES = (
    Recipe("unet_256", ("--netG", "unet_256", "--ngf", "64")),
    Recipe("unet_256_ngf16", ("--netG", "unet_256", "--ngf", "16")),
    Recipe("mobilenet_unet", ("--netG", "mobilenet_unet")),
    Recipe("edge_unet_s", ("--netG", "edge_unet_s")),
    Recipe("edge_unet_m", ("--netG", "edge_unet_m")),
    Recipe("edge_unet_l", ("--netG", "edge_unet_l")),
    Recipe("relight_s", ("--netG", "relight_s")),
    Recipe("relight", ("--netG", "relight")),
    Recipe("pyramid", ("--netG", "pyramid")),
    Recipe("resnet_9blocks", ("--netG", "resnet_9blocks"), usual=False),
)
TEACHER = "unet_256"


def training_options(recipe: Sequence[str], common: Sequence[str], images: int) -> tuple[str, ...]:
    """Options of `p2p-train` with as many steps as make it see `images` pairs.

    Args:
        recipe: of one generator; they win over those in common.
        common: of all.
        images: pairs seen, each time that one is drawn counted.
    """
    options = (*common, *recipe)
    given = dict(pairwise(options))  # of an option that is given twice the last one
    of_a_step = int(given.get("--batch-size", BATCH_SIZE)) * int(given.get("--accumulate", 1))
    return ("--steps", str(math.ceil(images / of_a_step)), *options)


@dataclass(frozen=True)
class Source:
    """A set of pairs that every generator is trained and measured on."""

    name: str
    data: str
    """A folder of pairs, or `scenes`."""
    direction: str = "AtoB"
    unseen: str | None = None
    """A folder of pairs of cameras that training does not see."""
    cameras: tuple[str, ...] = ()
    """Those that were held out of `data` for it."""

    @property
    def held_out(self) -> str:
        """The folder that quality is measured on.

        Raises:
            UserError: there is neither val/ nor test/.
        """
        if self.data == SCENES:
            return SCENES
        folder = _held_out_in(self.root)
        if folder is None:
            told = f"{self.data} has no val/ or test/"
            raise UserError(told, "held-out pairs", "make one of them")
        return str(folder)

    @property
    def root(self) -> Path:
        """The data set's folder, whether that or its `train/` was named."""
        return root_of(self.data)


def _held_out_in(root: Path) -> Path | None:
    folders = (root / name for name in HELD_OUT_NAMES)
    return next((folder for folder in folders if folder.is_dir()), None)


def root_of(data: str) -> Path:
    """A data set's folder; of its `train/`, the one around it."""
    folder = Path(data).resolve()
    return folder.parent if folder.name == "train" else folder


def source_of(text: str) -> Source:
    """Of `--data NAME=DATA` or `NAME=DATA:BtoA`.

    Raises:
        UserError: it is not written so, or there is no such folder.
    """
    name, _, rest = text.partition("=")
    data, direction = rest, "AtoB"
    if rest.endswith((":AtoB", ":BtoA")):
        data, _, direction = rest.rpartition(":")
    if not _NAME.fullmatch(name) or not data:
        raise UserError(f"--data {text}", "NAME=FOLDER or NAME=FOLDER:BtoA", "change --data")
    if data != SCENES:
        _need_folder(data, "--data")
    return Source(name, data, direction)


def by_source(flag: str, texts: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` by name; where there is one set of pairs, a bare `VALUE` is its own.

    Raises:
        UserError: a name that no --data has.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and len(names) == 1:
            name, value = names[0], text
        if name not in names or not value:
            raise UserError(
                f"{flag} {text}",
                f"NAME={flag[2:].upper()} with a NAME of --data: {', '.join(names)}",
                f"change {flag}",
            )
        found[name] = value
    return found


def given_runs(texts: Sequence[str], sources: Sequence[Source]) -> dict[tuple[str, str], Path]:
    """Of `--run DATA/NAME=PATH`: the run or checkpoint of a set of pairs and a generator's name.

    Raises:
        UserError: it is not written so, or there is no such file.
    """
    known = [source.name for source in sources]
    runs = {}
    for text in texts:
        place, _, path = text.partition("=")
        data, _, name = place.partition("/")
        if data not in known or not _NAME.fullmatch(name) or not path:
            raise UserError(
                f"--run {text}",
                f"DATA/NAME=RUN with a DATA of --data: {', '.join(known)}",
                "change --run",
            )
        if not Path(path).exists():
            raise UserError(f"--run {text}: no such run", "a folder of p2p-train", "change --run")
        runs[data, name] = Path(path)
    return runs


def _need_folder(folder: str, flag: str) -> None:
    if not Path(folder).is_dir():
        raise UserError(f"no such folder: {folder}", "a folder of pairs", f"change {flag}")


def with_unseen(source: Source, unseen: str | None) -> Source:
    """The same, measured on other cameras, too: on pairs in a folder, or in its val/ or test/.

    Raises:
        UserError: no such folder.
        DataError: no pairs in it.
    """
    if unseen is None:
        return source
    _need_folder(unseen, "--unseen")
    folder = _held_out_in(Path(unseen)) or Path(unseen)
    open_pairs(str(folder), source.direction)  # what it lacks is told now, not after hours
    return Source(source.name, source.data, source.direction, str(folder))


# ------------------------------------------------------------------------------ cameras held out


def hold_out(source: Source, cameras: str, out: Path) -> Source:
    """Part a set of pairs by camera: the others to train on, these to measure on apart.

    A file's camera is its name up to the first `_` or `-`. Nothing is copied: the parts are
    folders of links, made anew at each call.

    Args:
        source: its pairs lie in folders.
        cameras: names with commas between them.
        out: `seen/` and `unseen/` go into it.

    Raises:
        UserError: drawn scenes, a camera that no file has, or no camera is left to train on.
        DataError: no pairs.
    """
    chosen = tuple(part for part in cameras.split(",") if part)
    if source.data == SCENES or source.unseen is not None:
        with_what = "scenes, which have no cameras" if source.data == SCENES else "--unseen"
        raise UserError(f"--hold-out {cameras} with {with_what}", "one way", "leave one out")
    train, held_out = find_train_and_held_out(Path(source.data))
    parts = {"train": train.files, "val": held_out.files if held_out else []}
    counts = Counter(camera_of(pair) for pairs in parts.values() for pair in pairs)
    missing = [camera for camera in chosen if camera not in counts]
    if missing or not chosen or not set(counts) - set(chosen):
        told = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())[:12])
        more = f" and {len(counts) - 12} more" if len(counts) > 12 else ""
        raise UserError(
            f"--hold-out {cameras}: {f'no file of {missing[0]}' if missing else 'not a part'}",
            f"some of the cameras in {source.data}, and not all: {told}{more}",
            "change --hold-out",
        )
    seen, unseen = out / "seen", out / "unseen"
    for phase, pairs in parts.items():
        _link([pair for pair in pairs if camera_of(pair) not in chosen], seen / phase)
    all_pairs = [pair for pairs in parts.values() for pair in pairs]
    _link([pair for pair in all_pairs if camera_of(pair) in chosen], unseen / "val")
    return Source(source.name, str(seen), source.direction, str(unseen / "val"), chosen)


def camera_of(pair: PairFile) -> str:
    """The start of the file's name."""
    found = _CAMERA.match(pair.a.stem)
    return found[0] if found else pair.a.stem


def _link(pairs: Sequence[PairFile], folder: Path) -> None:
    wanted: dict[Path, Path] = {}
    for pair in pairs:
        if pair.b is None:
            wanted[folder / pair.a.name] = pair.a
        else:
            wanted[folder / "A" / pair.a.name] = pair.a
            wanted[folder / "B" / (pair.a.stem + pair.b.suffix)] = pair.b
    try:
        _make_links(wanted, folder)
    except OSError as error:
        raise write_error(folder, error) from error


def _make_links(wanted: Mapping[Path, Path], folder: Path) -> None:
    for old in folder.rglob("*"):
        if old.is_symlink() and old not in wanted:
            old.unlink()
    for link, file in wanted.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and link.readlink() == file.resolve():
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())
