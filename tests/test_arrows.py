"""Who may import whom, as the architecture says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "trainer": {"trainer"},
    "runtime": {"runtime"},
    "export": {"export", "trainer", "runtime"},
    "benchmarks": {"benchmarks", "export", "runtime"},
}
SOURCES = [(room, path) for room in MAY_IMPORT for path in sorted((ROOT / room).rglob("*.py"))]


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            rooms |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            rooms.add((node.module or "").partition(".")[0])
    return rooms & set(MAY_IMPORT)


@pytest.mark.parametrize(("room", "path"), SOURCES, ids=lambda value: str(value)[-40:])
def test_imports_follow_the_arrows(room, path):
    assert imported_rooms(path) <= MAY_IMPORT[room]


@pytest.mark.parametrize(("room", "path"), SOURCES, ids=lambda value: str(value)[-40:])
def test_click_is_seen_in_cli_alone(room, path):
    if path.name != "cli.py" and room != "benchmarks":
        assert "import click" not in path.read_text(encoding="utf-8")


def modules_of(room: str) -> list[str]:
    files = sorted((ROOT / room).rglob("*.py"))
    return [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        (modules_of("runtime"), ["torch", "onnx", "trainer", "export"]),
        (["export.cli", "export.to_tensorrt"], ["torch", "onnx", "onnxruntime", "safetensors"]),
        (modules_of("trainer"), ["runtime", "export", "onnx"]),
    ],
    ids=["runtime without torch", "engine building without torch", "trainer alone"],
)
def test_modules_import_without_what_they_must_not_need(modules, blocked):
    script = f"import sys, importlib\nfor b in {blocked}: sys.modules[b] = None\n" + "\n".join(
        f"importlib.import_module({module!r})" for module in modules
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
