"""Who may import whom, as the architecture says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from onnx_models import write_negative

from runtime.artifact import ArtifactMeta

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "trainer": {"trainer"},
    "runtime": {"runtime"},
    "export": {"export", "trainer", "runtime"},
    "benchmarks": {"benchmarks", "export", "runtime", "trainer"},
}
BUILDS_ENGINES = [
    "export.cli",
    "export.console",
    "export.engine_cache",
    "export.engine_log",
    "export.job",
    "export.report",
    "export.report_sections",
    "export.settings",
    "export.speed",
    "export.subjects",
    "export.to_tensorrt",
    "export.ui",
    "export.verify",
]
"""What `p2p-export model.fp16.onnx` needs on a Jetson, which has no torch."""
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
    if not path.stem.endswith("cli") and room != "benchmarks":
        assert "import click" not in path.read_text(encoding="utf-8")


def modules_of(room: str) -> list[str]:
    files = sorted((ROOT / room).rglob("*.py"))
    return [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        (modules_of("runtime"), ["torch", "onnx", "trainer", "export"]),
        (BUILDS_ENGINES, ["torch", "onnx", "onnxruntime", "safetensors", "torchmetrics"]),
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


def test_an_engine_is_built_and_kept_where_torch_and_onnx_are_not_installed(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")
    meta = ArtifactMeta("negative", "fp32", (64, 96), (64, 96), 18, "none", "0" * 64)
    path = write_negative(tmp_path / "model.onnx", (64, 96), meta)
    script = (
        "import sys\n"
        "for b in ('torch', 'onnx', 'onnxruntime', 'safetensors'): sys.modules[b] = None\n"
        "from export.cli import export\n"
        "export()\n"
    )
    told = []
    for arguments in ([path], [path], [path, "--fp16"], [tmp_path]):
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert "Traceback" not in done.stderr
        told.append((done.returncode, done.stderr))
    assert [code for code, _ in told] == [0, 0, 2, 2]
    assert "no engine yet" in told[0][1]
    assert "is up to date: kept" in told[1][1]
    assert "pip install 'pix2pix-edge[train]'" in told[2][1]
    assert "pip install 'pix2pix-edge[train]'" in told[3][1]
    assert (tmp_path / "model.engine.json").exists()
