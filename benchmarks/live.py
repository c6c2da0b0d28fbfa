"""`python benchmarks/live.py RUN`: how old is the picture on the screen, and what does it cost.

RUN is a run's folder with `generator.safetensors`, `model.onnx` and, for the INT8 rows,
`model.int8.cpu.onnx`. What is compared takes turns in one process, so that a disturbance of the
machine hits all of it alike; each figure is the median of the rounds' ratios.

- The age of the frame at the sink, a time-coded camera of 30 frames a second: the plain loop of
  `benchmarks/peers/plain_loop.py` over ours.
- Frames per second of a video that becomes a video: ours over the plain loop.
- One frame's whole way over the engine alone.
- p99 over p50 of the age in one long run.
- Memory, threads and open files over many frames.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import live_rounds
from benchmarks.command import exit_code_of
from benchmarks.conditions.environment import environment
from benchmarks.peers import plain_loop
from benchmarks.timing import percentile, rotated
from runtime.errors import ModelError
from runtime.files import write_text
from runtime.modes import streams_for
from runtime.sinks import open_sink
from runtime.sinks.writable import check_file
from runtime.sources.synthetic import SyntheticSource
from runtime.translator import Translator

SCHEMA = 1
SIZE_PX = (480, 640)
FPS = 30.0
_SETTLED_AFTER = 1000


@dataclass
class Rows:
    """One comparison: for each thing measured, a figure of each round."""

    unit: str
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, figure: float) -> None:
        """The figure of one round."""
        self.rounds.setdefault(name, []).append(figure)

    def ratio(self, over: str, under: str) -> float:
        """The median of the rounds' ratios."""
        pairs = zip(self.rounds[over], self.rounds[under], strict=True)
        return median(first / second for first, second in pairs)

    def told(self) -> dict[str, Any]:
        """Medians and rounds, for the file."""
        return {
            "unit": self.unit,
            "medians": {name: median(figures) for name, figures in self.rounds.items()},
            "rounds": self.rounds,
        }


Part = tuple[str, Callable[[], float]]


def interleaved(unit: str, parts: Sequence[Part], rounds: int) -> Rows:
    """Measure each part once in each round, another one first each time."""
    rows = Rows(unit)
    for number in range(rounds):
        for name, measured in rotated(parts, number):
            rows.add(name, measured())
            click.echo(f"  {name}: {rows.rounds[name][-1]:.2f} {unit}", err=True)
    return rows


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(min=2),
    default=8.0,
    show_default=True,
    help="Of each live run in each round; the first second is left out.",
)
@click.option(
    "--frames",
    type=click.IntRange(min=4),
    default=60,
    show_default=True,
    help="Of each round of one frame's way over the engine alone.",
)
@click.option(
    "--file-frames",
    type=click.IntRange(min=4),
    default=240,
    show_default=True,
    help="Of the video that becomes a video.",
)
@click.option(
    "--steady",
    type=click.FloatRange(min=0),
    default=180.0,
    show_default=True,
    help="Seconds of the long live run; 0: none.",
)
@click.option(
    "--soak",
    "soak_frames",
    type=click.IntRange(min=0),
    default=100_000,
    show_default=True,
    help="Frames of the endurance run, in each mode; 0: none.",
)
@click.option(
    "--waiting",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Frames in the queue that the plain loop reads from.",
)
@click.option("--video", type=click.Path(path_type=Path, exists=True), help="[default: drawn]")
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE")
def live(
    run: Path,
    rounds: int,
    seconds: float,
    frames: int,
    file_frames: int,
    steady: float,
    soak_frames: int,
    waiting: int,
    video: Path | None,
    json_path: Path | None,
) -> None:
    """Measure RUN live, on a file, and over a long time; the last line has the ratios."""
    if json_path is not None:
        check_file(json_path)  # now, not after a quarter of an hour
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        models = _models_of(run)
        plain_path = folder / "plain.onnx"
        plain_loop.export_plainly(run, plain_path)
        plain = plain_loop.PlainNetwork(plain_path)
        ours = {name: opened.enter_context(Translator.load(path)) for name, path in models.items()}
        result: dict[str, Any] = {
            "schema": SCHEMA,
            "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "environment": environment(),
            "engines": {name: translator.description for name, translator in ours.items()},
            "settings": {
                "frame_size_px": SIZE_PX, "fps": FPS, "rounds": rounds, "seconds": seconds,
                "frames": frames, "file_frames": file_frames,
                "waiting": waiting, "video": video.name if video else "drawn",
            },
        }  # fmt: skip
        ratios: dict[str, float] = {}
        _say(f"age at the sink, p50, {FPS:g} frames a second")
        ages = interleaved("ms", _age_parts(plain, ours, seconds, waiting), rounds)
        result["age"] = ages.told()
        for name in ours:
            ratios[f"plain age / our {name} age"] = ages.ratio("plain", name)

        clip = video or _drawn(folder, max(frames, file_frames))
        _say("a video becomes a video")
        files = interleaved(
            "fps", _file_parts(plain, models, clip, folder, file_frames, opened), rounds
        )
        result["file"] = files.told()
        for name in ours:
            ratios[f"our {name} fps / plain fps, same file"] = files.ratio(
                f"ours {name}", f"plain with our {name}"
            )
        ratios["our fp32 fps / plain fps as torch exports it"] = files.ratio("ours fp32", "plain")

        _say("one frame's way over the engine alone")
        for name, translator in ours.items():
            way = interleaved("ms", _way_parts(translator, clip, frames), rounds)
            result[f"way {name}"] = way.told()
            ratios[f"frame / engine, {name}"] = way.ratio("frame", "engine")

        if steady > 0:
            for name, translator in ours.items():
                long = live_rounds.live_ages_ms(translator, SIZE_PX, FPS, steady)
                p50, p99 = percentile(long, 50), percentile(long, 99)
                result[f"steady {name}"] = {
                    "seconds": steady, "frames": len(long), "p50_ms": p50, "p99_ms": p99,
                    "most_ms": max(long),
                }  # fmt: skip
                _say(f"{steady:g} s live, {name}: age p50 {p50:.1f}, p99 {p99:.1f} ms")
                ratios[f"p99 / p50 of the age, {name}"] = p99 / p50
        if soak_frames:
            small = folder / "negative.onnx"
            _write_negative(small)
            settled_after = min(_SETTLED_AFTER, soak_frames // 10)
            for mode in ("latency", "throughput"):
                first, last = live_rounds.soak(small, mode, soak_frames, settled_after)
                result[f"soak {mode}"] = [asdict(first), asdict(last)]
                _say(f"{mode}: {first} -> {last}")
                ratios[f"memory at the end / after {settled_after}, {mode}"] = (
                    last.rss_mb / first.rss_mb
                )
    result["ratios"] = ratios
    if json_path is not None:
        write_text(json_path, json.dumps(result, indent=2) + "\n")
    click.echo("; ".join(f"{name}: {ratio:.2f}" for name, ratio in ratios.items()))


def _models_of(run: Path) -> dict[str, Path]:
    paths = {"fp32": run / "model.onnx", "int8": run / "model.int8.cpu.onnx"}
    found = {name: path for name, path in paths.items() if path.is_file()}
    if "fp32" not in found or not (run / "generator.safetensors").is_file():
        raise ModelError(
            f"{run} has no generator.safetensors with model.onnx",
            "the folder of a run that was exported",
            "make one with: p2p-train --out RUN; p2p-export RUN --int8",
        )
    return found


def _age_parts(
    plain: plain_loop.PlainNetwork, ours: dict[str, Translator], seconds: float, waiting: int
) -> list[Part]:
    def of_plain() -> float:
        camera = plain_loop.QueuedCamera(SIZE_PX, FPS, waiting)
        return percentile(plain_loop.live_ages_ms(plain, camera, seconds), 50)

    def of(translator: Translator) -> Callable[[], float]:
        return lambda: percentile(live_rounds.live_ages_ms(translator, SIZE_PX, FPS, seconds), 50)

    return [("plain", of_plain), *((name, of(each)) for name, each in ours.items())]


def _file_parts(
    plain: plain_loop.PlainNetwork,
    models: dict[str, Path],
    clip: Path,
    folder: Path,
    frames: int,
    opened: ExitStack,
) -> list[Part]:
    written = folder / "written.mp4"

    def of_plain(network: plain_loop.PlainNetwork) -> Callable[[], float]:
        return lambda: plain_loop.file_fps(network, clip, written, frames)

    def of(translator: Translator) -> Callable[[], float]:
        return lambda: live_rounds.file_fps(translator, clip, written, frames)

    parts: list[Part] = [("plain", of_plain(plain))]
    for name, path in models.items():
        translator = opened.enter_context(Translator.load(path, streams=streams_for("throughput")))
        parts.append((f"plain with our {name}", of_plain(plain_loop.PlainNetwork(path))))
        parts.append((f"ours {name}", of(translator)))
    return parts


def _way_parts(translator: Translator, clip: Path, frames: int) -> list[Part]:
    return [
        ("engine", lambda: median(live_rounds.inference_ms(translator, SIZE_PX, frames))),
        ("frame", lambda: median(live_rounds.frame_ms(translator, clip, frames))),
    ]


def _drawn(folder: Path, frames: int) -> Path:
    """A video of the synthetic stream, 640x480."""
    path = folder / "drawn.mp4"
    sink = open_sink(str(path), fps=25.0)
    source = SyntheticSource(SIZE_PX, frames=frames)
    while (frame := source.read()) is not None:
        sink.write(frame)
    sink.close()
    return path


def _write_negative(path: Path) -> None:
    """The smallest network: 255 - x, uint8 [1, 60, 80, 3]."""
    import onnx
    from onnx import TensorProto, helper

    white = helper.make_tensor("white", TensorProto.FLOAT, [], [255.0])
    shape = [1, 60, 80, 3]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frames"], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["white", "levels"], ["negative"]),
            helper.make_node("Cast", ["negative"], ["translated"], to=TensorProto.UINT8),
        ],
        "negative",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("translated", TensorProto.UINT8, shape)],
        [white],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))


def _say(line: str) -> None:
    click.echo(line, err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return exit_code_of(live, arguments, "stopped: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
