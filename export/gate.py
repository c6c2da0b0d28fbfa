"""The gate of one export: what draws the same picture is brought home, and all of it is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from export.report import GateRun, Section, verdict, write_reports
from export.settings import ExportSettings
from export.subjects import Subject
from export.to_tensorrt import BuiltEngine
from export.ui import Say
from export.verify import (
    THRESHOLDS,
    Comparison,
    Image,
    Parity,
    Threshold,
    check_parity,
    not_run,
)
from runtime.artifact import ArtifactMeta, meta_of_onnx, sidecar_of
from runtime.errors import EngineError
from runtime.translator import working_size_px

Judged = tuple[Parity, list[Image]]
"""A finding, and what the artifact drew."""


class Gate:
    """Compares artifacts that lie aside; moves into `out` those that pass, and keeps count.

    Without `settings.verify` everything passes, and says of itself that nobody looked.
    """

    def __init__(self, subject: Subject, out: Path, settings: ExportSettings, say: Say) -> None:
        self.comparison = Comparison.drawn(
            subject.gate.frames,
            subject.reference,
            lambda size_px: working_size_px(subject.meta, size_px),
        )
        self.thresholds = _thresholds(settings)
        """By precision."""
        self.files: dict[str, Path] = {}
        """ONNX files that passed, where they are now, by form."""
        self.engines: list[BuiltEngine] = []
        self.findings: list[Parity] = []
        self.sections: list[Section] = []
        """Of the report."""
        self._subject = subject
        self._out = out
        self._verify = settings.verify
        self._say = say
        self._notes = list(subject.notes)
        self._drawn: dict[str, list[Image]] = {}

    @property
    def passed(self) -> bool:
        """Whether nothing failed so far."""
        return all(finding.passed is not False for finding in self.findings)

    def note(self, line: str) -> None:
        """Say a line, and keep it for the report."""
        self._notes.append(line)
        self._say(line)

    def judge(self, form: str, path: Path) -> Judged:
        """Compare one artifact, and decide nothing.

        Raises:
            EngineError: this machine cannot run it.
        """
        return check_parity(path, self.comparison, self.thresholds[form.partition(".")[0]])

    def admit_onnx(self, form: str, path: Path, judged: Judged | None = None) -> None:
        """Compare one ONNX file, where that is not done yet, and bring it home if it passes."""
        meta = meta_of_written(path)
        if self._verify:
            finding = self._enter(path.name, judged or self.judge(form, path))
            if not finding.passed:
                return
            meta = replace(meta, parity=finding.summary())
        else:
            meta = replace(meta, verified=False)
        write_meta(path, meta)
        self.files[form] = path.replace(self._out / path.name)

    def admit_engine(self, form: str, built: BuiltEngine) -> None:
        """Bring an engine home, unless this machine can run it and it does not pass."""
        if self._verify:
            name = built.path.name
            try:
                finding = self._enter(name, self.judge(form, built.path))
            except EngineError as error:
                why = f"built, not run: {error.received}"
                finding = self._enter(name, (not_run(name, form, why, self.thresholds[form]), []))
            if finding.passed is False:
                return
        home = self._out / built.path.name
        sidecar_of(built.path).replace(sidecar_of(home))
        self.engines.append(replace(built, path=built.path.replace(home)))

    def write_reports(self) -> None:
        """`parity.json` and `parity.html`, where anything was compared."""
        if not self._verify:
            return
        subject = self._subject
        run = GateRun(
            source=subject.name,
            reference=subject.reference_name,
            images=subject.gate.origin,
            names=subject.gate.names,
            frames=subject.gate.frames,
            references=self.comparison.references,
            findings=self.findings,
            drawn=self._drawn,
            notes=self._notes,
            sections=self.sections,
        )
        write_reports(self._out, run)

    def _enter(self, name: str, judged: Judged) -> Parity:
        finding, self._drawn[name] = judged
        self.findings.append(finding)
        self._say(verdict(finding))
        return finding


def meta_of_written(path: Path) -> ArtifactMeta:
    """The contract inside a file that this export wrote."""
    meta = meta_of_onnx(path)
    if meta is None:
        raise RuntimeError(f"{path} lost its metadata")
    return meta


def write_meta(path: Path, meta: ArtifactMeta) -> None:
    """Give an ONNX file another contract."""
    from export.graph import load_model
    from export.to_onnx import save_with_meta

    save_with_meta(load_model(path), path, meta)


def _thresholds(settings: ExportSettings) -> dict[str, Threshold]:
    """The gate's own, with what the user asks for instead."""
    fp16, int8 = THRESHOLDS["fp16"], THRESHOLDS["int8"]
    if settings.max_abs_diff is not None:
        fp16 = replace(fp16, max_abs_diff=settings.max_abs_diff)
    if settings.min_psnr_db is not None:
        int8 = replace(int8, min_psnr_db=settings.min_psnr_db)
    if settings.min_ssim is not None:
        int8 = replace(int8, min_ssim=settings.min_ssim)
    return {**THRESHOLDS, "fp16": fp16, "int8": int8}
