"""Results of latency.py in schema 2, out of made-up times: for what reads them, never measured."""

import random
from itertools import chain, combinations

from benchmarks.distributions import Ratio, to_json

STAGE_MS = {"capture": 0.5, "in": 1.4, "out": 0.3, "sink": 0.003}
PEERS = {
    "torch": "PyTorch eager",
    "torch_compile": "torch.compile",
    "openvino": "OpenVINO",
    "onnxruntime_stock": "ONNX Runtime, as torch exports it",
    "opencv_loop": "plain OpenCV loop",
}


def made_result(
    rows=(("model.onnx", "", 80.0), ("torch", "torch", 110.0)), *, generators=("unet",)
):
    """A whole result; `rows`: (name, which peer or empty, milliseconds of infer)."""
    chance = random.Random(1)
    told, infer, whole = [], {}, {}
    for generator in generators:
        for name, peer, infer_ms in rows:
            full = name
            if len(generators) > 1:  # as benchmarks/rounds/line_up.py tells them apart
                full = f"{name}, {generator}" if peer else f"{generator}/{name}"
            stages = {
                stage: [[chance.gauss(1, 0.03) * ms for _ in range(10)] for _ in range(10)]
                for stage, ms in {**STAGE_MS, "infer": infer_ms}.items()
            }
            stages["infer"][3][2] *= 1.8  # a hiccup
            end_to_end = [
                [sum(parts) + 0.05 for parts in zip(*(stages[s][r] for s in stages), strict=True)]
                for r in range(10)
            ]
            infer[full], whole[full] = stages["infer"], end_to_end
            told.append(_row(full, peer, generator, stages, end_to_end))
    ratios = []
    for one, other in combinations(told, 2):
        if "ours" not in (one["role"], other["role"]) or one["generator"] != other["generator"]:
            continue
        for of, samples in (("infer", infer), ("end_to_end", whole)):
            slow, fast = one["name"], other["name"]
            if Ratio.of(samples[slow], samples[fast]).value < 1:
                slow, fast = fast, slow
            ratio = vars(Ratio.of(samples[slow], samples[fast]))
            ratios.append({"slow": slow, "fast": fast, "of": of, **ratio})
    return {
        "schema": 2,
        "kind": "latency",
        "created_at": "2026-11-22T01:00:00+00:00",
        "meanings": {"percentiles": "nearest rank, in milliseconds"},
        "settings": {
            "command": "python benchmarks/latency.py model.onnx --peers torch",
            "live": False,
            "source": "builtin",
            "sink": "none",
            "frames": 100,
            "threads": None,
            "rounds": [10] * 10,
            "source_description": "built-in video, 640x480, 30 fps, 60 frames",
        },
        "environment": {
            "cpu": "Made-up CPU",
            "cpu_threads": 2,
            "os": "Debian",
            "python": "3.11.7",
            "gpus": [],
            "libraries": {"onnxruntime": "1.31.1", "torch": "2.13.0"},
            "load_average_1m": 0.2,
            "load_average_1m_after": 2.0,
        },
        "warnings": [],
        "rows": told,
        "device_rows": [],
        "ratios": ratios,
        "roof": None,
        "power": None,
    }


def _row(name, peer, generator, stages, end_to_end):
    return {
        "name": name,
        "role": "peer" if peer else "ours",
        "peer": peer,
        "generator": generator,
        "engine": PEERS.get(peer, "ONNX Runtime 1.31.1, CPU, 2 threads"),
        "precision": "fp32",
        "how": "As its documentation says is fastest.",
        "file": None if peer else "model.onnx",
        "frame_size_px": [256, 256],
        "status": "measured",
        "size_bytes": None if peer else 54_000_000,
        "load_ms": 226.6,
        "latency": {
            "fps": 1000 * 100 / sum(chain.from_iterable(end_to_end)),
            "stages_ms": {
                **{stage: to_json(rounds) for stage, rounds in stages.items()},
                "end_to_end": to_json(end_to_end),
            },
            "explained": 0.999,
        },
        "throughput": None if peer else {"fps": 12.0, "frame_interval_ms": to_json(end_to_end)},
        "inference_alone_ms": to_json(stages["infer"]),
        "pipeline_over_inference": None,
        "device_ms": None,
        "roof": None,
        "energy": None,
        "meta": None,
    }
