"""Which rows a benchmark has: each model with each engine, each checkpoint, and their peers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeAlias

from benchmarks.peers.trtexec import DeviceRow
from benchmarks.rounds.models import checkpoint_in, is_checkpoint, short_names
from benchmarks.rounds.rows import PEER, NotRun, OurRow, Row
from runtime.artifact import ArtifactMeta, sha256_of
from runtime.errors import UserError

EAGER = "torch"
"""The peer that a checkpoint which was named is run by, if no other was asked for."""
LinedUp: TypeAlias = "Row | DeviceRow | NotRun"


class PeersOf(Protocol):
    """Opens peers, as `benchmarks.peers.peers_of` does."""

    def __call__(
        self,
        checkpoint: Path | None,
        wanted: Sequence[str],
        like: ArtifactMeta | None,
        models: Sequence[Path],
    ) -> Sequence[LinedUp]:
        """The peers of these names, of a checkpoint whose models these are."""


@dataclass
class LineUp:
    """What is measured."""

    rows: list[LinedUp] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    models: list[Path | None] = field(default_factory=list)
    """For each row the file that it stands for; None: a peer of a checkpoint that nobody named."""


@dataclass
class _Generator:
    """One checkpoint, or the exports of one."""

    name: str
    sources: set[str]
    """SHA-256 of what its models were exported from; empty: nobody knows."""
    folder: Path
    checkpoint: Path | None = None
    like: ArtifactMeta | None = None
    """The contract of the first of its models that runs."""
    models: list[Path] = field(default_factory=list)


def line_up(
    paths: Sequence[Path],
    opened: ExitStack,
    *,
    engines: Sequence[str],
    peers: Sequence[str],
    peers_of: PeersOf,
    threads: int | None,
) -> LineUp:
    """Open a row for each model and engine, and the peers of each generator.

    Args:
        paths: models, engines, checkpoints.
        opened: closes the rows.
        engines: of `runtime.engines.ENGINES`; of several each file takes those that load it.
        peers: names of peers.
        peers_of: opens them.
        threads: CPU threads of one inference.
    """
    lined_up = LineUp()
    generators: list[_Generator] = []
    for path, name in zip(paths, short_names(paths), strict=True):
        if is_checkpoint(path):
            continue
        fitting = _fitting(path, engines)
        for engine in fitting:
            row_name = f"{name} ({engine})" if len(fitting) > 1 else name
            row: LinedUp
            try:
                ours = OurRow(path, name=row_name, engine=engine, threads=threads)
            except UserError as error:
                row = NotRun(row_name, error, generator=path.absolute().parent.name, file=path)
            else:
                opened.callback(ours.close)
                row = ours
                generator = _generator_of(ours, path, generators)
                ours.generator = generator.name
                generator.like = generator.like or ours.meta
                if path not in generator.models:
                    generator.models.append(path)
            lined_up.rows.append(row)
            lined_up.models.append(path)
    for path in paths:
        if is_checkpoint(path):
            _add_checkpoint(path, generators)
    for generator in generators:
        _add_peers(lined_up, generator, opened, peers, peers_of, paths)
    _tell_apart(lined_up)
    return lined_up


def _fitting(path: Path, engines: Sequence[str]) -> list[str]:
    """Of several engines those that load such a file; the first where none does, which says so."""
    if len(engines) == 1:
        return list(engines)
    is_engine = path.suffix.lower() == ".engine"
    found = [name for name in engines if name == "auto" or (name == "tensorrt") == is_engine]
    return found or [engines[0]]


def _generator_of(row: OurRow, path: Path, generators: list[_Generator]) -> _Generator:
    """The generator that a model was exported from; it may be a new one."""
    folder = path.resolve().parent
    source = row.meta.source_sha256
    beside = [one for one in generators if one.folder == folder and one.sources]
    same = next((one for one in beside if source in one.sources), None)
    if same is None:
        name = folder.name or path.stem
        same = _Generator(f"{name}/{path.stem}" if beside else name, {source}, folder)
        same.name = _unused(same.name, generators)
        generators.append(same)
    return same


def _add_checkpoint(path: Path, generators: list[_Generator]) -> None:
    """A checkpoint that was named: that of models beside it, or a generator of its own."""
    folder = path.resolve().parent
    digest = sha256_of(path) if path.is_file() else ""
    for one in generators:
        if digest and digest in one.sources:
            one.checkpoint = path
            return
    of_a_run = path.resolve() == checkpoint_in(folder)
    name = _unused(folder.name if of_a_run else path.stem, generators)
    generators.append(_Generator(name, {digest} if digest else set(), folder, path))


def _unused(name: str, generators: Sequence[_Generator]) -> str:
    taken = {one.name for one in generators}
    number, told = 2, name
    while told in taken:
        told, number = f"{name} {number}", number + 1
    return told


def _add_peers(
    lined_up: LineUp,
    generator: _Generator,
    opened: ExitStack,
    peers: Sequence[str],
    peers_of: PeersOf,
    paths: Sequence[Path],
) -> None:
    checkpoint = generator.checkpoint
    named = checkpoint in paths
    wanted = list(peers) or ([EAGER] if named else [])
    if not wanted:
        return
    if checkpoint is None:
        checkpoint = checkpoint_in(generator.folder)
    if checkpoint is not None and _moved_on(checkpoint, generator):
        lined_up.warnings.append(
            f"the peers of {generator.name} are made of {checkpoint.name} as it is now; its "
            "models were exported from other weights: export it again with p2p-export"
        )
    for row in peers_of(checkpoint, wanted, generator.like, generator.models):
        if isinstance(row, NotRun):
            row = replace(row, generator=generator.name, file=row.file or checkpoint)
        else:
            opened.callback(row.close)
            row.generator = generator.name
        lined_up.rows.append(row)
        lined_up.models.append(checkpoint if named else None)


def _moved_on(checkpoint: Path, generator: _Generator) -> bool:
    """Whether the models of a generator were not exported from what its checkpoint now holds."""
    if not generator.sources or not checkpoint.is_file():
        return False
    return sha256_of(checkpoint) not in generator.sources


def _tell_apart(lined_up: LineUp) -> None:
    """No two rows share a name: peers of several generators are told apart by these."""
    names = [row.name for row in lined_up.rows]
    for number, row in enumerate(lined_up.rows):
        if names.count(names[number]) < 2 or row.role != PEER:
            continue
        name = f"{row.name}, {row.generator}"
        if isinstance(row, NotRun):
            lined_up.rows[number] = replace(row, name=name)
        else:
            row.name = name
