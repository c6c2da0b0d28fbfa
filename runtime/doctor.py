"""What this machine can run, and for each missing thing the line that mends it.

Needs nothing but Python, so that `python -m runtime.doctor` answers where the installation is
what is broken: argparse stands here in place of click.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from runtime import checks, checks_video
from runtime.checking import ABSENT, MISSING, OK, Check

SCHEMA = 1

SECTIONS: dict[str, tuple[Callable[[], Check | list[Check]], ...]] = {
    "machine": (
        checks.check_python,
        checks.check_cpu,
        checks.check_gpu,
        checks.check_jetson,
        checks.check_disk,
    ),
    "engines": (
        checks.check_onnxruntime,
        checks.check_onnxruntime_cuda,
        checks.check_openvino,
        checks.check_tensorrt,
        checks.check_tensorrt_rtx,
        checks.check_pycuda,
        checks.check_cuda_bindings,
    ),
    "video": (
        checks_video.check_opencv,
        checks_video.check_gstreamer,
        checks_video.check_ffmpeg,
        checks_video.check_screen,
        checks_video.check_extras,
        checks_video.check_cameras,
    ),
    "training": (checks.check_torch, checks.check_training_packages, checks.check_matplotlib),
}


def examine() -> dict[str, list[Check]]:
    """All checks, by section."""
    asked = [(title, check) for title, checks in SECTIONS.items() for check in checks]
    with ThreadPoolExecutor(4) as workers:
        answers = list(workers.map(lambda entry: _answer(entry[1]), asked))
    found: dict[str, list[Check]] = {title: [] for title in SECTIONS}
    for (title, _), answer in zip(asked, answers, strict=True):
        found[title] += answer
    return found


def _answer(check: Callable[[], Check | list[Check]]) -> list[Check]:
    """What a check found; its own failure is a finding too: the doctor never falls ill."""
    try:
        answer = check()
    except Exception as error:  # noqa: BLE001 - a machine can be broken in ways unknown here
        name = check.__name__.removeprefix("check_").replace("_", " ")
        told = f"could not be examined: {type(error).__name__}: {error}"
        return [Check(name, MISSING, told, "please report this line as an issue")]
    return answer if isinstance(answer, list) else [answer]


def conclude(found: dict[str, list[Check]]) -> str:
    """One line: what this machine does."""
    checks = {check.name: check for section in found.values() for check in section}

    def ok(name: str) -> bool:
        return name in checks and checks[name].state == OK

    can = []
    if ok("torch") and ok("training packages"):
        device = "GPU" if "the GPU" in checks["torch"].found else "CPU"
        can += [f"trains on the {device}", "exports to ONNX"]
    libraries = [name for name in ("TensorRT", "TensorRT-RTX") if ok(name)]
    if libraries:
        can.append(f"builds {' and '.join(libraries)} engines")
    live = ["TensorRT"] if libraries and ok("NVIDIA GPU") and ok("pycuda") else []
    if ok("ONNX Runtime"):
        live.append(f"ONNX Runtime ({_live_device(ok('ONNX Runtime CUDA'))})")
    if live and ok("OpenCV"):
        can.append(f"runs live on {' and '.join(live)}")
    if not can:
        return "This machine runs nothing yet: pip install 'pix2pix-edge[cpu]' runs models, " \
            "pip install 'pix2pix-edge[cpu,train]' trains too."  # fmt: skip
    *first, last = can
    line = "This machine " + (", ".join(first) + ", and " if first else "") + last + "."
    if "runs live" not in last:
        needed = [checks.get(name) for name in ("ONNX Runtime", "OpenCV") if not ok(name)]
        line += f" To run models: {'; '.join(check.mend for check in needed if check)}."
    return line


def _live_device(on_cuda: bool) -> str:
    if on_cuda:
        return "CUDA"
    from runtime.engines.threads import physical_cores

    cores = physical_cores()
    return f"CPU, {cores} thread{'s' if cores > 1 else ''}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `p2p-doctor`."""
    parser = argparse.ArgumentParser(
        prog="p2p-doctor",
        description="Tell what this machine can run, and how to mend what it cannot.",
    )
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="also write the findings to FILE"
    )
    json_path: Path | None = parser.parse_args(arguments).json
    found = examine()
    conclusion = conclude(found)
    sys.stdout.write(_told(found, colored=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    sys.stdout.write(f"\n{conclusion}\n")
    if json_path is not None:
        _write_json(json_path, found, conclusion)


def _write_json(path: Path, found: dict[str, list[Check]], conclusion: str) -> None:
    from runtime.errors import UserError
    from runtime.files import write_text

    values = {
        "schema": SCHEMA,
        "conclusion": conclusion,
        "checks": [
            {"section": title, **asdict(check)} for title, rows in found.items() for check in rows
        ],
    }
    try:
        write_text(path, json.dumps(values, indent=2) + "\n")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


_COLORS = {OK: "32", MISSING: "31", ABSENT: "2"}


def _told(found: dict[str, list[Check]], colored: bool) -> str:
    width = max(len(check.name) for rows in found.values() for check in rows)
    lines = []
    for title, rows in found.items():
        lines.append(title)
        for check in rows:
            state = f"{check.state:<8}"
            if colored:
                state = f"\033[{_COLORS[check.state]}m{state}\033[0m"
            lines.append(f"  {state} {check.name:<{width}}  {check.found}")
            if check.mend:
                lines.append(f"{'':<11} {'':<{width}} -> {check.mend}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
