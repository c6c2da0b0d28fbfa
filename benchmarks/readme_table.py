"""`python benchmarks/readme_table.py`: the README's figures, out of the committed files.

What stands in the section "Measured" is declared in `benchmarks/readme_rows.py` and read out of
`benchmarks/results/`; nobody types a figure. `--check` writes nothing and tells which lines
differ.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import exit_code_of
from benchmarks.exports.report import between_markers
from benchmarks.readme_figures import Figure, Line, Table
from benchmarks.readme_latency import LATENCY
from benchmarks.readme_rows import LINES
from runtime.errors import UserError
from runtime.files import write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
MARKERS = ("<!-- measured:start -->", "<!-- measured:end -->")
DIFFERS = 1
DASH = "–"
_HEAD = ("| what | got | again with | file |", "|---|---|---|---|")
_DATE = r"\d{4}-\d{2}-\d{2}"


@dataclass(frozen=True)
class ResultFile:
    """A committed run: `DATE-MACHINE-KIND.json`."""

    path: Path
    values: Mapping[str, Any]

    @property
    def date(self) -> str:
        """As in its name, YYYY-MM-DD."""
        return self.path.name[:10]


class Results:
    """The committed runs of a folder, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, ResultFile] = {}

    def machines(self, kind: str) -> list[str]:
        """That have a file of that kind, by name."""
        name = re.compile(rf"{_DATE}-(.+)-{re.escape(kind)}\.json")
        found = (name.fullmatch(path.name) for path in self.folder.glob("*.json"))
        return sorted({match[1] for match in found if match})

    def newest(self, kind: str, machine: str) -> ResultFile:
        """The last run of that kind on that machine.

        Raises:
            UserError: there is none, or it is no JSON object.
        """
        name = re.compile(rf"{_DATE}-{re.escape(machine)}-{re.escape(kind)}\.json")
        paths = [path for path in self.folder.glob("*.json") if name.fullmatch(path.name)]
        if not paths:
            raise UserError(
                f"{self.folder.name} has no DATE-{machine}-{kind}.json",
                "a committed run of that kind",
                "measure and commit it, or take what asks for it out of benchmarks/readme_rows.py",
            )
        path = max(paths, key=lambda path: path.name)
        if path not in self._read:
            self._read[path] = ResultFile(path, _object_in(path))
        return self._read[path]

    @property
    def taken(self) -> list[ResultFile]:
        """Those that a figure came from so far."""
        return list(self._read.values())


def _object_in(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path.name} cannot be read: {error}", "a JSON file of results", "measure again"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path.name} holds no JSON object", "a file of results", "measure again")
    return values


# ---------------------------------------------------------------------------------- one section


def section(results: Results) -> str:
    """What stands between the markers.

    Raises:
        UserError: a file, or a field of it, that a line asks for is missing.
    """
    lines = [_told_line(line, results) for line in LINES]
    parts = [_conditions(results), "\n".join((*_HEAD, *lines))] if lines else []
    for machine in results.machines(LATENCY.kind):
        parts.append("\n".join(_told_table(LATENCY, results.newest(LATENCY.kind, machine))))
    return "\n\n".join(parts)


def _told_line(line: Line, results: Results) -> str:
    file = results.newest(line.kind, line.machine)
    figures = {name: _value(file, figure, line.what) for name, figure in line.figures.items()}
    try:
        told = (line.what.format_map(figures), line.got.format_map(figures))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"the line '{line.what}' cannot be told from {file.path.name}: {error}",
            "figures of the kind that its text asks for",
            "mend it in benchmarks/readme_rows.py",
        ) from error
    again = ", ".join(f"`{command}`" for command in line.again)
    return f"| {' | '.join(map(_cell, (*told, again)))} | {_link(file)} |"


def _value(file: ResultFile, figure: Figure, what: str) -> Any:
    try:
        return figure.of(file.values)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _lacks(file, figure.told, what) from error


def _lacks(file: ResultFile, field: str, what: str) -> UserError:
    return UserError(
        f"{file.path.name} lacks {field}, which '{what}' is told from",
        "a file that has it",
        "measure again, or mend benchmarks/readme_rows.py",
    )


def _told_table(table: Table, file: ResultFile) -> Iterator[str]:
    if file.values.get("schema") != table.schema:
        raise UserError(
            f"{file.path.name} is of schema {file.values.get('schema')}",
            f"schema {table.schema} for '{table.title}'",
            "measure again with: " + table.again,
        )
    around = file.values.get("environment")
    if not isinstance(around, dict):
        raise _lacks(file, "environment", table.title)
    yield f"**{table.title}**, {_told_machine(around)} ({_link(file)}, `{table.again}`)"
    yield ""
    yield f"| {' | '.join(column.title for column in table.columns)} |"
    yield "|" + "|".join("---:" if column.number else "---" for column in table.columns) + "|"
    for row in _value(file, table.rows, table.title):
        cells = []
        for column in table.columns:
            try:
                told = column.told(file.values, row)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                name = row.get("name", row) if isinstance(row, dict) else row
                field = f"the figure of '{column.title}' in its row '{name}' ({error})"
                raise _lacks(file, field, table.title) from error
            cells.append(DASH if told is None else _cell(told))
        yield f"| {' | '.join(cells)} |"
    if table.note:
        yield ""
        yield table.note


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _link(file: ResultFile) -> str:
    return f"[{file.date}](benchmarks/results/{file.path.name})"


def _conditions(results: Results) -> str:
    """On which machines the figures of the lines were measured."""
    machines = dict.fromkeys(
        _told_machine(file.values["environment"])
        for file in results.taken
        if isinstance(file.values.get("environment"), dict)
    )
    told = "; ".join(machines)
    return (
        "Every figure here is read out of a committed run by `python benchmarks/readme_table.py`. "
        "Speed differs from machine to machine and from day to day; each line says how to measure "
        f"yours. Measured on: {told}."
    )


def _told_machine(around: Mapping[str, Any]) -> str:
    """CPU or GPU, system and the versions that matter."""
    libraries = around.get("libraries") or {}
    parts = [around.get("jetson"), *(around.get("gpus") or ())]
    if around.get("cpu"):
        parts.append(f"{around['cpu']}, {around.get('cpu_threads')} threads")
    parts += [around.get("power_mode"), around.get("os")]
    told = [str(part) for part in parts if part]
    if around.get("python"):
        told.append("Python " + ".".join(str(around["python"]).split(".")[:2]))
    for name, title in (("onnxruntime", "ONNX Runtime"), ("torch", "PyTorch")):
        version = libraries.get(name) or libraries.get(f"{name}-gpu")
        if version:
            told.append(f"{title} {'.'.join(version.split('.')[:2])}")
    return ", ".join(told)


# ---------------------------------------------------------------------------------- the command


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--check", is_flag=True, help="Write nothing; exit code 1 with the lines that differ."
)
@click.option(
    "--docs",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The Markdown file that has the two markers.  [default: this clone's README.md]",
)
@click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the committed runs are.  [default: this clone's benchmarks/results]",
)
def readme_table(check: bool, docs: Path | None, folder: Path | None) -> int:
    """Write the README's section "Measured" out of the committed files of results.

    Exit code: 0; 1 if --check found lines that differ; 2 for a file or a field that is missing.
    """
    path = docs or README
    wanted = between_markers(path, section(Results(folder or RESULTS)), MARKERS)
    found = path.read_bytes().decode("utf-8")
    if wanted == found:
        return 0
    if not check:
        write_text(path, wanted)
        click.echo(f"written  {path.name}")
        return 0
    click.echo(f"{path.name} does not say what the committed files say (-: it does, +: they do):")
    for line in difflib.unified_diff(found.splitlines(), wanted.splitlines(), n=0, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            click.echo(line)
    click.echo("mend it with: python benchmarks/readme_table.py")
    return DIFFERS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(readme_table, arguments, "stopped: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
