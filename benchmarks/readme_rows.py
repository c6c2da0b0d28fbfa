"""The figures of the README's section "Measured": the one place to add, change or remove one.

A `Line` is words with figures in them, and where in which file each figure is; the section's
whole tables are in `benchmarks/readme_latency.py`. `benchmarks/readme_table.py` writes both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.readme_figures import CPU, Figure, Line, Step, at


def _mb(count: int) -> float:
    return count / 1e6


def _count(told: str) -> int:
    """Of `20 of daynight/val`."""
    return int(told.split()[0])


def _of_demo(*steps: Step) -> Figure:
    return at("models", {"file": "runs/demo/model.onnx"}, *steps)


def _of_scenes(*steps: Step) -> Figure:
    return at("models", {"file": "runs/scenes/model.onnx"}, *steps)


def _of_unet(form: str, *steps: Step, then: Callable[[Any], Any] | None = None) -> Figure:
    return at("exports", {"generator": "unet_256"}, "rows", {"form": form}, *steps, then=then)


_STAGES = ("one_frame_at_a_time", "stages_ms")
_OVER = ("pipeline_over_inference", "value")
_EXPORT_TABLE = ("p2p-export RUN --fp16 --int8", "python benchmarks/export_table.py RUN")
_LIVE = ("python benchmarks/live.py RUN",)
_TRAINING = "p2p-train, batch 4, fp32"


def _over_plain(name: str, then: Callable[[Any], Any], same: bool = True) -> Figure:
    key = "over_plain_of_the_same_batch" if same else "over_plain_of_batch_1"
    return at("rows", {"name": name}, key, then=then)


def _of_daynight(which: str, measure: str) -> Figure:
    # Every row of these pairs has the same two baselines.
    return at("rows", {"data": "daynight", "recipe": "unet-l1"}, "measured", which, measure)


def _baseline(what: str, which: str) -> Line:
    return Line(
        what=f"day to night on real photos, held-out pairs: {what}",
        kind="ablation",
        got="L1 {l1:.1f} grey levels, PSNR {psnr:.2f} dB, SSIM {ssim:.3f}",
        figures={name: _of_daynight(which, name) for name in ("l1", "psnr", "ssim")},
        again=("p2p-eval RUN DATA/val",),
    )


def _of_eight_cameras(name: str, *steps: Step) -> Figure:
    return at("data", {"name": "eight-cameras"}, "rows", {"name": name}, *steps)


def _student(name: str, told: str, where: str = "", machine: str = CPU, options: str = "") -> Line:
    """A generator that the U-Net taught, beside it.

    Args:
        name: in the file.
        told: its options, in words.
        where: what the machine is, where it is not the one of the other lines.
        machine: of the file.
        options: of the command, beside those that name the pairs and the runs.
    """
    return Line(
        what=f"{where}day to night, eight webcams, "
        "{images:,} images, held-out pairs: "
        f"U-Net 256 in FP32, then {told} in INT8, which it taught and which saw drawn scenes "
        "before",
        kind="frontier",
        got="L1 {l1:.1f}, {own_l1:.1f}; SSIM {ssim:.3f}, {own_ssim:.3f}; SWD (texture, lower is "
        "better) {swd:.0f}, {own_swd:.0f}; a frame takes {eager:.0f} ms in PyTorch, "
        "{own:.1f} ms in ONNX Runtime (p50)",
        figures={
            "images": _of_eight_cameras(name, "images_seen"),
            "eager": _of_eight_cameras("unet_256", "latency_ms", "torch", "p50"),
            "own": _of_eight_cameras(name, "latency_ms", "ort_int8", "p50"),
            **{
                key: _of_eight_cameras("unet_256", "held_out", "fp32", key)
                for key in ("l1", "ssim", "swd")
            },
            **{
                f"own_{key}": _of_eight_cameras(name, "held_out", "int8", key)
                for key in ("l1", "ssim", "swd")
            },
        },
        again=(f"python benchmarks/frontier.py{options}",),
        machine=machine,
    )


def _growth(name: str) -> Figure:
    return at("series", {"name": name}, "pixels", "fit", "power", "exponent")


def _start(role: str, peer: str, state: str, *steps: str) -> Figure:
    return at("rows", {"role": role, "peer": peer, "state": state}, *steps)


LINES: tuple[Line, ...] = (
    Line(
        what="FP32 ONNX of a U-Net 256 against PyTorch, {photos} photos, worst picture",
        kind="export",
        got="{psnr:.1f} dB, SSIM {ssim:.4f}",
        figures={
            "photos": at("exports", {"generator": "unet_256"}, "compared_on", then=_count),
            "psnr": _of_unet("fp32", "quality", "psnr_db"),
            "ssim": _of_unet("fp32", "quality", "ssim"),
        },
        again=_EXPORT_TABLE,
    ),
    Line(
        what="FP16 ONNX of the same",
        kind="export",
        got="{psnr:.1f} dB, SSIM {ssim:.4f}",
        figures={
            "psnr": _of_unet("fp16", "quality", "psnr_db"),
            "ssim": _of_unet("fp16", "quality", "ssim"),
        },
        again=_EXPORT_TABLE,
    ),
    Line(
        what="ONNX in FP32 against PyTorch, {images} drawn scenes, worst pixel",
        kind="unet256",
        got="{off} of 255 grey levels",
        figures={
            "images": _of_scenes("meta", "parity", "images"),
            "off": _of_scenes("meta", "parity", "max_abs_diff"),
        },
        again=("p2p-export RUN --fp16",),
    ),
    Line(
        what="TensorRT-RTX engine of U-Net 256",
        kind="export",
        got="FP16 {fp16:.0f} MB, FP32 {fp32:.0f} MB, INT8 {int8:.0f} MB",
        figures={
            form: _of_unet(form, "engine", "size_bytes", then=_mb)
            for form in ("fp16", "fp32", "int8")
        },
        again=_EXPORT_TABLE,
    ),
    Line(
        what="one frame, U-Net 256 of the demo (ngf 32), 256x256 video",
        kind="demo",
        got="infer {infer:.1f} ms, end to end {p50:.1f} ms (p50), {p99:.1f} ms (p99)",
        figures={
            "infer": _of_demo(*_STAGES, "infer", "p50"),
            "p50": _of_demo(*_STAGES, "end_to_end", "p50"),
            "p99": _of_demo(*_STAGES, "end_to_end", "p99"),
        },
        again=("python benchmarks/latency.py runs/demo --source runs/demo/street.mp4",),
    ),
    Line(
        what="the same in FP16, which is for GPUs: on this CPU it is the slower one",
        kind="demo",
        got="infer {fp16:.1f} ms, FP32 {fp32:.1f} ms (p50)",
        figures={
            "fp16": at("models", {"file": "runs/demo/model.fp16.onnx"}, *_STAGES, "infer", "p50"),
            "fp32": _of_demo(*_STAGES, "infer", "p50"),
        },
        again=("python benchmarks/latency.py runs/demo --source runs/demo/street.mp4",),
    ),
    Line(
        what="one frame, U-Net 256 (ngf 64, 54 M parameters), 640x480 video",
        kind="unet256",
        got="infer {infer:.1f} ms, end to end {p50:.1f} ms (p50), {p99:.1f} ms (p99)",
        figures={
            "infer": _of_scenes(*_STAGES, "infer", "p50"),
            "p50": _of_scenes(*_STAGES, "end_to_end", "p50"),
            "p99": _of_scenes(*_STAGES, "end_to_end", "p99"),
        },
        again=("p2p-train --epochs 1; p2p-export; python benchmarks/latency.py",),
    ),
    Line(
        what="frame time of the whole pipeline over inference alone, in the same run, U-Net 256",
        kind="unet256",
        got="{over:.2f}",
        figures={"over": _of_scenes(*_OVER)},
        again=("python benchmarks/latency.py",),
    ),
    Line(
        what="the same, U-Net 256 of the demo",
        kind="demo",
        got="{over:.2f}",
        figures={"over": _of_demo(*_OVER)},
        again=("python benchmarks/latency.py",),
    ),
    Line(
        what="INT8 of a U-Net 256 trained on real photos, 256x256, this CPU has no VNNI",
        kind="export",
        got="`model.int8.cpu.onnx` {int8:.1f} ms, `model.onnx` {fp32:.1f} ms (p50, in turn in one "
        "run), {times:.2f} times as fast; worst of {photos} photos {psnr:.1f} dB",
        figures={
            "int8": _of_unet("int8.cpu", "frame_ms", "p50"),
            "fp32": _of_unet("fp32", "frame_ms", "p50"),
            "times": _of_unet("int8.cpu", "speedup"),
            "photos": at("exports", {"generator": "unet_256"}, "compared_on", then=_count),
            "psnr": _of_unet("int8.cpu", "quality", "psnr_db"),
        },
        again=_EXPORT_TABLE,
    ),
    Line(
        what="age of the picture at the sink, a camera of {fps:.0f} frames a second, "
        "{size[1]}x{size[0]}, U-Net 256 (ngf 64), p50",
        kind="live",
        got="a plain OpenCV + ONNX Runtime loop behind a queue of {waiting} frames {plain:.0f} "
        "ms; ours {fp32:.0f} ms in FP32 ({times_fp32:.1f} times younger), {int8:.0f} ms in INT8 "
        "({times_int8:.1f} times)",
        figures={
            "fps": at("settings", "fps"),
            "size": at("settings", "frame_size_px"),
            "waiting": at("settings", "waiting"),
            "plain": at("age", "medians", "plain"),
            "fp32": at("age", "medians", "fp32"),
            "int8": at("age", "medians", "int8"),
            "times_fp32": at("ratios", "plain age / our fp32 age"),
            "times_int8": at("ratios", "plain age / our int8 age"),
        },
        again=_LIVE,
    ),
    Line(
        what="p99 over p50 of that age in {seconds:.0f} seconds",
        kind="live",
        got="{fp32:.2f} in FP32, {int8:.2f} in INT8",
        figures={
            "seconds": at("steady fp32", "seconds"),
            "fp32": at("ratios", "p99 / p50 of the age, fp32"),
            "int8": at("ratios", "p99 / p50 of the age, int8"),
        },
        again=_LIVE,
    ),
    Line(
        what="one frame's whole way over the engine alone, {size[1]}x{size[0]}",
        kind="live",
        got="{fp32:.2f} in FP32, {int8:.2f} in INT8",
        figures={
            "size": at("settings", "frame_size_px"),
            "fp32": at("ratios", "frame / engine, fp32"),
            "int8": at("ratios", "frame / engine, int8"),
        },
        again=_LIVE,
    ),
    Line(
        what="a video that becomes a video, frames per second over the plain loop with the same "
        "file",
        kind="live",
        got="{fp32:.2f} in FP32, {int8:.2f} in INT8",
        figures={
            "fp32": at("ratios", "our fp32 fps / plain fps, same file"),
            "int8": at("ratios", "our int8 fps / plain fps, same file"),
        },
        again=_LIVE,
    ),
    Line(
        what="{frames:,} frames, from the first {first:,} on",
        kind="live",
        got="memory {before:.1f} to {after:.1f} MB where the newest frame counts, "
        "{all_before:.1f} to {all_after:.1f} MB where all do; threads {threads}; open files "
        "{files}",
        figures={
            "frames": at("soak latency", -1, "frames"),
            "first": at("soak latency", 0, "frames"),
            "before": at("soak latency", 0, "rss_mb"),
            "after": at("soak latency", -1, "rss_mb"),
            "all_before": at("soak throughput", 0, "rss_mb"),
            "all_after": at("soak throughput", -1, "rss_mb"),
            "threads": at("soak latency", then=lambda parts: _then(parts, "threads")),
            "files": at("soak latency", then=lambda parts: _then(parts, "open_files")),
        },
        again=_LIVE,
    ),
    Line(
        what="training, images a second over a plain loop of the same networks, U-Net 256 "
        "(ngf {ngf}), FP32",
        kind="training",
        got="batch 1: {one:.2f}; batch 4: {four:.2f}; ours with batch 4 over the plain loop with "
        "batch 1: {best:.2f} (medians of {rounds} rounds, {least:.1f} to {most:.1f})",
        figures={
            "ngf": at("settings", "generator", "ngf"),
            "rounds": at("settings", "rounds"),
            "one": _over_plain("p2p-train, batch 1, fp32", median),
            "four": _over_plain(_TRAINING, median),
            "best": _over_plain(_TRAINING, median, same=False),
            "least": _over_plain("p2p-train, batch 1, fp32", min),
            "most": _over_plain(_TRAINING, max, same=False),
        },
        again=("python benchmarks/training_speed.py --rounds 9 --steps 1",),
    ),
    Line(
        what="from starting to the first frame, INT8 U-Net 256, warm caches",
        kind="startup",
        got="{ours:.0f} ms (p50), `p2p-live` {command:.0f} ms; with cold caches {cold:.0f} ms; a "
        "plain ONNX Runtime script {plain:.0f} ms, PyTorch {torch:.0f} ms; peak memory "
        "{memory:.0f} MB, PyTorch {torch_memory:.0f} MB",
        figures={
            "ours": _start("ours", "", "warm", "total_ms", "p50"),
            "command": _start("ours", "", "warm", "command_ms", "p50"),
            "cold": _start("ours", "", "cold", "total_ms", "p50"),
            "plain": _start("peer", "onnxruntime_plain", "warm", "total_ms", "p50"),
            "torch": _start("peer", "torch", "warm", "total_ms", "p50"),
            "memory": _start("ours", "", "warm", "memory_mb", "at_the_end", "peak"),
            "torch_memory": _start("peer", "torch", "warm", "memory_mb", "at_the_end", "peak"),
        },
        again=("python benchmarks/startup.py model.int8.cpu.onnx --checkpoint RUN",),
    ),
    Line(
        what="{runs} runs of one command: by how much the greatest of each of its {count} ratios "
        "is above the least",
        kind="agreement",
        got="{least:.1f} to {most:.1f} %",
        figures={
            "runs": at("created_at", then=len),
            "count": at("ratios", then=len),
            "least": at("ratios", then=lambda found: min(map(_apart, found))),
            "most": at("ratios", then=lambda found: max(map(_apart, found))),
        },
        again=(
            "python benchmarks/latency.py RUN --peers torch,openvino --duration 120 --json FILE",
            "python benchmarks/agreement.py FILE...",
        ),
    ),
    Line(
        what="time of a frame over its pixels, 256x256 to 1024x2048, FP32: the exponent b of "
        "a * megapixels ^ b (95 % interval)",
        kind="scaling",
        got="U-Net 256 {unet[value]:.2f} ({unet[low]:.2f} to {unet[high]:.2f}); `relight "
        "--reduction 4`, whose network looks at a small copy, {relight[value]:.2f} "
        "({relight[low]:.2f} to {relight[high]:.2f})",
        figures={"unet": _growth("unet_256 fp32"), "relight": _growth("relight-4 fp32")},
        again=("python benchmarks/scaling.py RUN RUN --batch 1 --cameras 0 --threads 2",),
    ),
    _student("relight-2", "`relight --reduction 2`"),
    _student("relight-4", "`relight --reduction 4`"),
    _student(
        "relight-2",
        "`relight --reduction 2 --frame-norm`",
        "on an AMD EPYC with AVX-512 and VNNI, one thread: ",
        "amd-epyc-avx512-1-thread",
        " --threads 1",
    ),
    _student(
        "relight-2",
        "`relight --reduction 2 --frame-norm`",
        "the same with two threads: ",
        "amd-epyc-avx512-2-threads",
    ),
    _baseline("the day picture handed back", "identity"),
    _baseline("the mean of the night pictures", "mean_target"),
)


def _apart(ratio: Mapping[str, Any]) -> float:
    return float(ratio["apart_percent"])


def _then(parts: Sequence[Mapping[str, Any]], key: str) -> str:
    """`8, then 9`: of the first part and of the last."""
    first, last = parts[0][key], parts[-1][key]
    return f"{first}, then {last}"
