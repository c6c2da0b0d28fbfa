"""Which precisions a processor multiplies by instructions of their own, as the system tells."""

from __future__ import annotations

import platform
import re

from runtime import machine

_X86 = {
    "FP32": ("avx512f", "fma"),
    "FP16": ("amx_fp16", "avx512_fp16"),
    "BF16": ("amx_bf16", "avx512_bf16"),
    "INT8": ("amx_int8", "avx512_vnni", "avx_vnni", "avx_vnni_int8"),
}
_ARM = {
    "FP32": ("sve", "asimd"),
    "FP16": ("sve", "asimdhp"),
    "BF16": ("svebf16", "bf16"),
    "INT8": ("svei8mm", "i8mm", "asimddp"),
}
_OF_ARCHITECTURE = {"x86_64": _X86, "AMD64": _X86, "aarch64": _ARM, "arm64": _ARM}


def processor_flags() -> frozenset[str]:
    """What /proc/cpuinfo, else lscpu, lists as `flags` (x86) or `Features` (ARM); else empty."""
    for told in (machine.read_text("/proc/cpuinfo"), machine.output_of("lscpu")):
        if found := re.search(r"^(?:flags|features)\s*:\s*(.+)$", told, re.MULTILINE | re.I):
            return frozenset(found[1].split())
    return frozenset()


def instruction_note(
    precision: str, flags: frozenset[str], architecture: str | None = None
) -> str:
    """Whether products of a precision have instructions here, in a sentence.

    Args:
        precision: `FP32`, `FP16`, `BF16` or `INT8`.
        flags: as `processor_flags` gives them.
        architecture: as `platform.machine` names it; None: this machine's.
    """
    known = _OF_ARCHITECTURE.get(architecture or platform.machine())
    if known is None or not flags:
        return "this system does not tell the processor's instructions"
    wanted = known[precision]
    found = [flag for flag in wanted if flag in flags]
    if found:
        return f"has {', '.join(found)}"
    return (
        f"NO instruction for {precision} products here (none of {', '.join(wanted)}): "
        "computed by wider ones"
    )
