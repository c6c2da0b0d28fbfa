"""One export from end to end: each form is made aside, compared, and only then brought home."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from export.engine_cache import engine_on_disk, why_stale
from export.gate import Gate, meta_of_written
from export.gate_images import GateImages, in_two_sizes
from export.report_sections import engine_section, half_section, int8_sections, speed_section
from export.settings import ExportSettings
from export.speed import frame_times_ms, told_speed
from export.subjects import Subject
from export.to_tensorrt import BuildOptions, BuiltEngine, engine_from_onnx
from export.ui import Say, Ui
from export.verify import CAMERA_SIZE_PX, Parity
from runtime.artifact import ArtifactMeta
from runtime.errors import EngineError, ModelError
from runtime.files import scratch_folder
from runtime.translator import working_size_px

if TYPE_CHECKING:
    import onnx

    from export.int8_search import Int8Search

ONNX_NAMES = {
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
    "int8.cpu": "model.int8.cpu.onnx",
}
"""By form: the precision, and for INT8 on the CPU what it is for."""
ENGINE_NAMES = {"fp32": "model.engine", "fp16": "model.fp16.engine", "int8": "model.int8.engine"}
HALF_SEARCH_IMAGES = 6
GATE_ATTEMPTS = 4
"""Times that INT8 is made again with a higher goal when the gate refuses it."""
LEAST_INT8 = 0.5
"""Share of the multiply-accumulates below which a file is INT8 in name only."""


@dataclass(frozen=True)
class Exported:
    """What an export left behind."""

    out: Path
    onnx_files: dict[str, Path] = field(default_factory=dict)
    """By form: those that were written, since they passed the gate."""
    findings: Sequence[Parity] = ()
    engines: Sequence[BuiltEngine] = ()
    engine_error: EngineError | None = None
    """Why an engine is missing, where one was to be built."""
    fastest: Path | None = None
    """The file that takes least for a frame on this machine, where that was measured."""

    @property
    def passed(self) -> bool:
        """Whether no artifact failed the gate."""
        return all(finding.passed is not False for finding in self.findings)


def export_subject(subject: Subject, out: Path, settings: ExportSettings, ui: Ui) -> Exported:
    """Every form that is asked for, compared, and the engines of them.

    What fails the gate does not reach `out`; the report does.

    Raises:
        ModelError, SourceError: what was asked for does not fit the model or the pictures.
    """
    return _Job(subject, out, settings, ui).run()


def export_engine(onnx_path: Path, out: Path, options: BuildOptions, ui: Ui) -> Exported:
    """The engine of an ONNX file of ours, as `STEM.engine`; kept where it is up to date.

    Needs neither torch nor onnx.

    Raises:
        EngineError: no TensorRT here, or it refused the model.
    """
    engine_path = out / f"{onnx_path.stem}.engine"
    stale = why_stale(onnx_path, engine_path, options)
    if stale is None:
        ui.say(f"{engine_path} is up to date: kept; to build it anew, delete it")
        return Exported(out, engines=[engine_on_disk(engine_path)])
    ui.say(f"building {engine_path}: {stale}")
    built = engine_from_onnx(
        onnx_path, engine_path, options=options, on_message=ui.say, on_progress=ui.on_progress
    )
    tell_engine(built, ui.say)
    return Exported(out, engines=[built])


class _Job:
    """The work on one subject: makes the forms, and leaves it to the gate what becomes of them."""

    def __init__(self, subject: Subject, out: Path, settings: ExportSettings, ui: Ui) -> None:
        self._subject = subject
        self._out = out
        self._settings = settings
        self._ui = ui

    def run(self) -> Exported:
        subject, settings = self._subject, self._settings
        meta = subject.meta
        if not settings.verify:
            self._ui.say("nothing is compared (--no-verify), and the files say so")
        calibration = subject.calibration() if settings.int8 else None  # bad ones end it here
        gate = self._gate = Gate(subject, self._out, settings, self._ui.say)
        engine_error = None
        with scratch_folder(self._out) as aside:
            base = self._base(aside)
            if gate.passed and (settings.fp16 or settings.int8):
                from export.graph import load_model

                model = load_model(base)
                if settings.fp16 and meta.precision == "fp32":
                    self._half(model, meta_of_written(base), aside)
                if calibration is not None:
                    self._int8(model, meta_of_written(base), calibration, aside)
            if settings.build and gate.passed:
                for form in self._forms_for_engines():
                    try:
                        self._engine(form, aside)
                    except EngineError as error:
                        engine_error = error
        fastest = self._compare_speed()
        gate.write_reports()
        return Exported(self._out, gate.files, gate.findings, gate.engines, engine_error, fastest)

    def _base(self, aside: Path) -> Path:
        """The plainest form: what all others are made from."""
        subject = self._subject
        if subject.already_there is not None:
            return subject.already_there
        form = subject.meta.precision
        path = aside / ONNX_NAMES[form]
        subject.write(path)
        if self._settings.upsample == "subpixel":
            self._with_subpixel(path)
        self._gate.admit_onnx(form, path)
        return self._gate.files.get(form, path)

    def _with_subpixel(self, path: Path) -> None:
        from export.graph import load_model
        from export.subpixel import with_subpixel_upsampling
        from export.to_onnx import save_with_meta

        model, count = with_subpixel_upsampling(load_model(path))
        meta = meta_of_written(path)
        save_with_meta(model, path, replace(meta, upsample="subpixel" if count else "keep"))
        self._gate.note(
            f"{count} transposed convolutions rewritten as convolution and depth-to-space"
        )

    def _half(self, model: onnx.ModelProto, meta: ArtifactMeta, aside: Path) -> None:
        """FP16, with those nodes in FP32 that need it."""
        from export.half_search import half_that_passes

        pictures = self._gate.comparison
        result = half_that_passes(
            model,
            [*pictures.frames[:HALF_SEARCH_IMAGES], *pictures.other_frames],
            [*pictures.references[:HALF_SEARCH_IMAGES], *pictures.other_references],
            self._gate.thresholds["fp16"],
            self._ui.say,
        )
        if section := half_section(result):
            self._gate.sections.append(section)
            nodes = len(result.kept)
            self._ui.say(f"FP16: {nodes} of {len(model.graph.node)} nodes stay in FP32")
        kept = {"fp32": [kept.node for kept in result.kept]} if result.kept else None
        path = aside / ONNX_NAMES["fp16"]
        self._save(path, result.model, replace(meta, precision="fp16", kept=kept))
        self._gate.admit_onnx("fp16", path)

    def _int8(
        self, model: onnx.ModelProto, meta: ArtifactMeta, calibration: GateImages, aside: Path
    ) -> None:
        """INT8 in each form that is asked for."""
        from export.int8_search import Int8Search
        from export.quantize import FORMS

        settings = self._settings
        if meta.precision != "fp32":
            raise ModelError(
                f"--int8 for a model in {meta.precision}",
                "an FP32 model, whose activations can be measured",
                "name the FP32 file or the checkpoint",
            )
        if meta.dynamic:
            calibration = in_two_sizes(calibration, working_size_px(meta, CAMERA_SIZE_PX))
        self._ui.say(f"INT8 is calibrated on {len(calibration.frames)}: {calibration.origin}")
        for target in settings.targets:
            form = FORMS[target]
            search = Int8Search(
                model,
                calibration.frames,
                form,
                method=settings.calibration_method,
                track=self._ui.track,
            )
            plain = replace(meta, precision="int8", target=target, upsample="subpixel")
            self._int8_form(search, plain, calibration.origin, aside)

    def _int8_form(self, search: Int8Search, meta: ArtifactMeta, origin: str, aside: Path) -> None:
        """One form of INT8: with more in higher precision where the gate finds it too coarse."""
        from export.int8_search import MARGIN_DB, with_margin

        gate = self._gate
        form = "int8" if meta.target == "tensorrt" else f"int8.{meta.target}"
        allowed = gate.thresholds["int8"]
        goal_db, goal_ssim = allowed.min_psnr_db + MARGIN_DB, with_margin(allowed.min_ssim)
        path = aside / ONNX_NAMES[form]
        judged = None
        for attempt in range(1, GATE_ATTEMPTS + 1):
            result = search.result(goal_db, goal_ssim)
            kept = {result.form.kept_in: list(result.kept)} if result.kept else None
            self._save(path, result.model, replace(meta, kept=kept))
            if not self._settings.verify:
                break
            finding, _ = judged = gate.judge(form, path)
            all_kept = len(result.kept) == len(result.layers)
            if finding.passed or all_kept or attempt == GATE_ATTEMPTS:
                break
            pictures = (*finding.differences, *finding.at_camera_size)
            worst_db = min(difference.psnr_db for difference in pictures)
            worst_ssim = min(difference.ssim for difference in pictures)
            goal_db += max(allowed.min_psnr_db - worst_db, 0.0) + MARGIN_DB
            goal_ssim = min(goal_ssim + max(allowed.min_ssim - worst_ssim, 0.0), 1.0)
            gate.note(
                f"INT8 for {meta.target}: the gate's pictures are harder ({worst_db:.1f} dB, SSIM "
                f"{worst_ssim:.4f}): the search now asks for {goal_db:.1f} dB, SSIM "
                f"{goal_ssim:.4f}, and these pictures are no longer unseen"
            )
        gate.sections += int8_sections(result, origin)
        share = f"{100 * result.kept_macs_share:.1f} % of the multiply-accumulates"
        left = f"{len(result.kept)} convolutions left in {result.form.kept_in} ({share})"
        self._ui.say(
            f"INT8 for {meta.target}: ranges {result.method}, "
            + (left if result.kept else "every convolution in INT8")
        )
        if result.kept_macs_share > 1 - LEAST_INT8:
            gate.note(
                f"{path.name} is INT8 in name: {share} stay in {result.form.kept_in}; prefer "
                "--fp16, lower --min-psnr or --min-ssim, or calibrate on pictures more like the "
                "gate's"
            )
        gate.admit_onnx(form, path, judged)

    def _save(self, path: Path, model: onnx.ModelProto, meta: ArtifactMeta) -> None:
        from export.to_onnx import save_with_meta

        save_with_meta(model, path, replace(meta, parity=None))

    def _forms_for_engines(self) -> list[str]:
        """FP16 and INT8 where they were asked for, else the plainest form."""
        files = self._gate.files
        asked = [form for form in files if form in ("fp16", "int8")]
        plainest = self._subject.meta.precision
        wants_more = self._settings.fp16 or self._settings.int8
        return asked or ([] if wants_more or plainest not in files else [plainest])

    def _engine(self, form: str, aside: Path) -> None:
        """Build the engine of one form.

        Raises:
            EngineError: no TensorRT here, or it refused the model.
        """
        built = engine_from_onnx(
            self._gate.files[form],
            aside / ENGINE_NAMES[form],
            options=self._settings.build_options,
            on_message=self._ui.say,
            on_progress=self._ui.on_progress,
        )
        tell_engine(built, self._ui.say)
        self._gate.sections.append(engine_section(built))
        self._gate.admit_engine(form, built)

    def _compare_speed(self) -> Path | None:
        """Say what a frame costs in each form here, and where INT8 is not worth it."""
        gate = self._gate
        if not self._settings.int8 or not gate.passed:
            return None
        ran = {finding.file for finding in gate.findings if finding.differences}
        models = {path.name: path for form, path in gate.files.items() if form != "int8"} | {
            engine.path.name: engine.path for engine in gate.engines if engine.path.name in ran
        }
        if at_hand := self._subject.already_there:
            models[at_hand.name] = at_hand
        if not models:
            return None
        times_ms = frame_times_ms(models)
        rivals = {
            ONNX_NAMES["int8.cpu"]: ONNX_NAMES["fp32"],
            ENGINE_NAMES["int8"]: ENGINE_NAMES["fp16"],
        }
        for line in told_speed(times_ms, rivals):
            gate.note(line)
        gate.sections.append(speed_section(times_ms))
        return models[min(times_ms, key=lambda name: times_ms[name])]


def tell_engine(built: BuiltEngine, say: Say) -> None:
    """One line of what was built."""
    types = ", ".join(f"{count} {name}" for name, count in sorted(built.layer_types.items()))
    say(
        f"{built.path.name}: built by {built.meta.engine_library} in {built.build_s:.1f} s, "
        f"{built.size_bytes / 1e6:.1f} MB, layers by output type: {types}"
    )
