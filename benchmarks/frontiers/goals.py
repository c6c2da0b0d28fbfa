"""What edge generators must reach, answered from the figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.frontiers.latency import Latencies, told_digits
from benchmarks.frontiers.rows import Row

HIGHER_IS_BETTER = {"l1": False, "psnr": True, "ssim": True, "ms_ssim": True, "swd": False}
"""Of the measures that have a better and a worse; gradient energy is best at 1."""
JUDGED = {"l1": "L1", "ssim": "SSIM", "swd": "SWD"}
INT8_FASTER_THAN_STOCK = 3.3
STUDENT_FASTER_THAN_TORCH = 50.0
INT8_PSNR_DB = 38.0
FASTER_THAN_OPENVINO = 1.0
TEACHER_FASTER_THAN_STOCK_OPENVINO = 2.4
FEWER_MACS, FEWER_PARAMETERS = 10.0, 20.0
WORSE_AT_MOST = 0.02
LARGE = "resnet_9blocks"
_SAME_IMAGES = 0.01
"""Part by which images seen may differ: the last step of a batch is a whole one."""


@dataclass(frozen=True)
class Goal:
    """A column: what every generator, or the teacher alone, is asked."""

    title: str
    asked: str


STOCK_GOAL = Goal(
    "ONNX Runtime FP32 as torch exports it / our INT8",
    f"at least {INT8_FASTER_THAN_STOCK:g}, through the gate",
)
STUDENT_GOAL = Goal(
    "PyTorch eager teacher / its INT8; change against the teacher's FP32",
    f"at least {STUDENT_FASTER_THAN_TORCH:g}, nothing worse",
)
PSNR_GOAL = Goal("INT8 against its own FP32, worst picture", f"at least {INT8_PSNR_DB:g} dB")
OPENVINO_GOAL = Goal(
    "OpenVINO (default) on our FP32 graph / our INT8", f"at least {FASTER_THAN_OPENVINO:g}"
)
STOCK_OPENVINO_GOAL = Goal(
    "OpenVINO (default) on the stock graph / our INT8",
    f"at least {TEACHER_FASTER_THAN_STOCK_OPENVINO:g}",
)
UNSEEN_GOAL = Goal("INT8 on cameras never seen, against the teacher's FP32", "all better")


def compression_goal(reference: str) -> Goal:
    """Against the teacher, or against the ResNet of the papers."""
    return Goal(
        f"MACs and parameters of `{reference}` / its own; change of its FP32",
        f"at least {FEWER_MACS:g} and {FEWER_PARAMETERS:g}, within {WORSE_AT_MOST:.0%}",
    )


@dataclass(frozen=True)
class Answer:
    """What was found for one generator and one goal."""

    generator: str
    goal: Goal
    found: str
    reached: bool | None
    """None: it could not be told."""
    untold: str = "not measured"
    """Why it could not be told, where it could not."""


def answers(rows: Sequence[Row], teacher: str, times: Latencies | None) -> Iterator[Answer]:
    """All goals, for one set of pairs.

    Args:
        rows: of that set; the teacher's may be missing.
        teacher: its name.
        times: None: not measured.
    """
    by_name = {row.name: row for row in rows}
    large = by_name.get(teacher)
    references = [row for row in (by_name.get(LARGE), large) if row is not None]
    for row in rows:
        is_student = row not in references
        if row is large:
            yield _faster(row, STOCK_GOAL, "ort_stock", INT8_FASTER_THAN_STOCK, times)
        if large is not None and is_student:
            yield _fair(large, row, _fast_and_as_good(large, row, times))
        yield _int8_keeps(row)
        yield _faster(row, OPENVINO_GOAL, "openvino_fp32", FASTER_THAN_OPENVINO, times)
        if row is large:
            least = TEACHER_FASTER_THAN_STOCK_OPENVINO
            yield _faster(row, STOCK_OPENVINO_GOAL, "openvino_stock", least, times)
        if is_student:
            for reference in references:
                yield _fair(reference, row, _compression(reference, row))
        if large is not None and is_student and large.unseen:
            told, worst = changes(large.unseen, row.unseen, "int8")
            better = None if worst is None else worst < 0
            yield _fair(large, row, Answer(row.name, UNSEEN_GOAL, told, better))


def same_images(one: Row, other: Row) -> bool:
    """Whether two generators saw the same number of images in training, as their runs tell."""
    if one.images_seen is None or other.images_seen is None:
        return False
    return abs(one.images_seen - other.images_seen) <= _SAME_IMAGES * one.images_seen


def _fair(reference: Row, student: Row, answer: Answer) -> Answer:
    """The answer, without its verdict where one of the two was trained for longer."""
    if same_images(reference, student):
        return answer
    seen = [
        "unknown" if row.images_seen is None else f"{row.images_seen:,}"
        for row in (student, reference)
    ]
    why = f"not comparable, {seen[0]} images seen against {seen[1]}:"
    return replace(answer, reached=None, untold=why)


def _faster(row: Row, goal: Goal, way: str, least: float, times: Latencies | None) -> Answer:
    if not row.passed("int8"):
        return Answer(row.name, goal, "INT8 did not pass the gate", False)
    ratio = times.ratio((row.name, way), (row.name, "ort_int8")) if times else None
    if ratio is None:
        return Answer(row.name, goal, "", None)
    return Answer(row.name, goal, str(ratio), ratio.value >= least)


def _fast_and_as_good(teacher: Row, student: Row, times: Latencies | None) -> Answer:
    if not student.passed("int8"):
        return Answer(student.name, STUDENT_GOAL, "INT8 did not pass the gate", False)
    ratio = times.ratio((teacher.name, "torch"), (student.name, "ort_int8")) if times else None
    told, worst = changes(teacher.held_out, student.held_out, "int8")
    found = f"{ratio}; {told}" if ratio else told
    verdicts = [
        None if ratio is None else ratio.value >= STUDENT_FASTER_THAN_TORCH,
        None if worst is None else worst <= 0,
    ]
    reached = False if False in verdicts else None if None in verdicts else True
    return Answer(student.name, STUDENT_GOAL, found, reached)


def _int8_keeps(row: Row) -> Answer:
    entry = row.gate.get("int8")
    if entry is None or entry["psnr_db"] is None:
        return Answer(row.name, PSNR_GOAL, "", None)
    kept = row.passed("int8") and entry["psnr_db"] >= INT8_PSNR_DB
    return Answer(row.name, PSNR_GOAL, f"{entry['psnr_db']:.1f} dB", kept)


def _compression(reference: Row, student: Row) -> Answer:
    macs = reference.macs / student.macs
    parameters = reference.parameters / student.parameters
    told, worst = changes(reference.held_out, student.held_out, "fp32")
    small = macs >= FEWER_MACS and parameters >= FEWER_PARAMETERS
    found = f"{told_digits(macs)}, {told_digits(parameters)}; {told}"
    reached = small and worst is not None and worst <= WORSE_AT_MOST
    return Answer(student.name, compression_goal(reference.name), found, reached)


def changes(
    teacher: Mapping[str, Mapping[str, Any]], student: Mapping[str, Mapping[str, Any]], form: str
) -> tuple[str, float | None]:
    """A student's form against the teacher's FP32: `L1 −1.9 %, SSIM +15.2 %, SWD −32.8 %`, and the
    part by which the worst of them is worse; None: one was not measured."""
    worse = {key: worse_by(teacher, student, form, key) for key in JUDGED}
    known = [value for value in worse.values() if value is not None]
    signed = {
        key: -value if HIGHER_IS_BETTER[key] else value
        for key, value in worse.items()
        if value is not None
    }
    told = ", ".join(f"{JUDGED[key]} {told_change(value)}" for key, value in signed.items())
    return told, max(known) if len(known) == len(JUDGED) else None


def worse_by(
    teacher: Mapping[str, Mapping[str, Any]],
    student: Mapping[str, Mapping[str, Any]],
    form: str,
    key: str,
) -> float | None:
    """By which part of the teacher's value a student is worse; below 0: better."""
    reference, value = (
        rows.get(which, {}).get(key) for rows, which in ((teacher, "fp32"), (student, form))
    )
    if not reference or value is None:
        return None
    change = (value - reference) / abs(reference)
    return float(-change if HIGHER_IS_BETTER[key] else change)


def told_change(part: float) -> str:
    """`+1.9 %`, with a minus that is as wide as the plus."""
    return f"{part:+.1%}".replace("-", "−").replace("%", " %")
