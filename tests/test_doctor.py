"""p2p-doctor on machines that lack things: it answers, names the mending line, never crashes."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from runtime import checks, checks_video, doctor, machine
from runtime.checking import ABSENT, MISSING, OK, Check
from runtime.doctor import conclude

REPOSITORY = Path(__file__).parent.parent
GPU = ([machine.Gpu("NVIDIA Orin", "8.7")], "driver for CUDA 12.6")
NO_GPU = ([], "no NVIDIA driver")


def run(*args, python=sys.executable, cwd=REPOSITORY, **environ):
    return subprocess.run(
        [python, "-m", "runtime.doctor", *args],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_tells_what_is_here_and_concludes_in_one_line():
    ran = run()
    assert (ran.returncode, ran.stderr) == (0, "")
    for told in ("Python", "CPU", "ONNX Runtime", "TensorRT-RTX", "OpenCV", "FFmpeg", "torch"):
        assert told in ran.stdout
    assert "\x1b" not in ran.stdout
    last = ran.stdout.splitlines()[-1]
    assert last.startswith("This machine trains on the ")
    assert "exports to ONNX" in last
    assert "runs live on ONNX Runtime (" in last


def test_the_findings_as_json_say_the_same(tmp_path):
    path = tmp_path / "doctor.json"
    ran = run("--json", str(path))
    values = json.loads(path.read_text())
    assert values["conclusion"] == ran.stdout.splitlines()[-1]
    assert values["schema"] == 1
    for check in values["checks"]:
        assert check["state"] in (OK, MISSING, ABSENT)
        assert check["found"]
        assert check["mend"] or check["state"] != MISSING, check
        assert check["found"] in ran.stdout


def test_a_json_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("no folder")
    ran = run("--json", str(tmp_path / "notes.txt" / "doctor.json"))
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1


def test_on_a_bare_python_it_names_what_to_install(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    ran = run(python=str(tmp_path / "bare" / "bin" / "python"))
    assert (ran.returncode, ran.stderr) == (0, "")
    told = " ".join(ran.stdout.split())
    assert "missing ONNX Runtime not installed (no module onnxruntime)" in told
    assert "-> pip install 'pix2pix-edge[cpu]'" in told
    assert "-> pip install 'pix2pix-edge[train]'" in told
    assert "missing OpenCV not installed (no module cv2)" in told
    assert ran.stdout.splitlines()[-1].startswith("This machine runs nothing yet: pip install")


def test_examining_imports_nothing_heavy_into_its_own_process():
    script = (
        "import sys; from runtime import doctor; doctor.examine()\n"
        "heavy = {'torch', 'onnxruntime', 'cv2', 'numpy', 'tensorrt', 'tensorrt_rtx', 'click'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def fake_module(folder, name, body):
    (folder / f"{name}.py").write_text(body)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer"),
        ("import os; os.abort()", "exit code -6"),
        ("", "has no attribute 'Builder'"),
    ],
)
def test_a_library_that_breaks_while_it_is_imported_is_missing_with_its_reason(
    tmp_path, monkeypatch, body, told
):
    fake_module(tmp_path, "tensorrt_rtx", body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = checks.check_tensorrt_rtx()
    if check.state == ABSENT:
        pytest.skip("made for x86-64 only")
    assert check.state == MISSING
    assert told in check.found
    assert check.mend == "pip install 'pix2pix-edge[rtx]'"


def test_an_import_that_hangs_is_given_up(tmp_path, monkeypatch):
    fake_module(tmp_path, "onnxruntime", "import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(machine, "PROBE_S", 1)
    works, told = machine.probe("import onnxruntime", machine.PROBE_S)
    assert not works
    assert told == "no answer within 1 s"


def test_a_file_of_that_name_in_the_working_folder_is_not_taken_for_the_library(
    tmp_path, monkeypatch
):
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 looks into the working folder first")
    fake_module(tmp_path, "onnxruntime", "raise SystemExit('not me')")
    monkeypatch.chdir(tmp_path)
    assert checks.check_onnxruntime().state == OK


def installed(monkeypatch, **versions):
    known = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(machine, "version_of", known.get)


def test_both_packages_of_onnx_runtime_at_once_are_told_to_overwrite_each_other(monkeypatch):
    installed(monkeypatch, onnxruntime="1.23.2", onnxruntime_gpu="1.23.2")
    monkeypatch.setattr(machine, "gpus", lambda: GPU)
    check = checks.check_onnxruntime()
    assert check.state == MISSING
    assert "overwrite each other" in check.found
    assert check.mend == (
        "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'pix2pix-edge[gpu]'"
    )


def test_two_packages_of_opencv_at_once_are_told_too(monkeypatch):
    installed(monkeypatch, opencv_python="4.12.0", opencv_python_headless="4.12.0")
    check = checks_video.check_opencv()
    assert check.state == MISSING
    assert check.mend.startswith("pip uninstall -y opencv-python opencv-python-headless")


def test_a_library_of_the_system_that_opencv_lacks_is_named_with_its_package(
    tmp_path, monkeypatch
):
    fake_module(
        tmp_path, "cv2", "raise ImportError('libGL.so.1: cannot open shared object file: No such')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = checks_video.check_opencv()
    assert check.state == MISSING
    assert "libGL.so.1" in check.found
    assert "apt install libgl1" in check.mend


JETSON = {
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit",
    "/var/lib/nvpmodel/status": "pmode:0001 fmode:quiet",
}


@pytest.fixture
def on_a_jetson(monkeypatch):
    monkeypatch.setattr(machine, "read_text", lambda path: JETSON.get(path, ""))
    monkeypatch.setattr(machine, "output_of", lambda *command, timeout_s=10: "")
    monkeypatch.setattr(machine, "gpus", lambda: GPU)


def test_a_jetson_tells_its_model_release_and_power_mode(on_a_jetson):
    check = checks.check_jetson()
    assert check.state == OK
    assert check.found == ("NVIDIA Jetson Orin Nano Developer Kit, L4T 36.4.3, power mode mode 1")


def test_the_name_of_a_power_mode_comes_from_nvpmodel(monkeypatch):
    monkeypatch.setattr(
        machine, "output_of", lambda *command, timeout_s=10: "NV Power Mode: MAXN_SUPER\n2"
    )
    assert machine.power_mode() == "MAXN_SUPER"


def test_a_jetson_gets_its_libraries_from_the_system(on_a_jetson, monkeypatch):
    monkeypatch.setattr(machine, "probe", lambda code, timeout_s=0: (False, "not installed"))
    assert "apt install python3-libnvinfer" in checks.check_tensorrt().mend
    assert checks.check_pycuda().mend == "pip install 'pix2pix-edge[jetson]'"
    check = checks_video.check_gstreamer()
    assert check.state == MISSING
    assert "no csi://" in check.found
    assert "apt install gstreamer1.0-tools" in check.mend


def test_a_jetson_whose_gstreamer_lacks_the_csi_camera_is_told_the_package(
    on_a_jetson, monkeypatch
):
    answers = {"gst-launch-1.0": "gst-launch-1.0 version 1.20.3\nGStreamer 1.20.3"}
    monkeypatch.setattr(
        machine, "output_of", lambda *command, timeout_s=10: answers.get(command[0], "")
    )
    check = checks_video.check_gstreamer()
    assert (check.state, check.found) == (
        MISSING,
        "1.20.3, without nvarguscamerasrc: no csi://",
    )
    assert "nvidia-l4t-gstreamer" in check.mend
    answers["gst-inspect-1.0"] = "Factory Details:"
    assert checks_video.check_gstreamer() == Check("GStreamer", OK, "1.20.3")


def test_elsewhere_gstreamer_ffmpeg_and_the_extras_are_no_must(monkeypatch):
    monkeypatch.setattr(machine, "jetson", lambda: None)
    monkeypatch.setattr(machine, "output_of", lambda *command, timeout_s=10: "")
    installed(monkeypatch)
    for check in (
        checks_video.check_gstreamer(),
        checks_video.check_ffmpeg(),
        checks.check_openvino(),
        *checks_video.check_extras(),
    ):
        assert check.state == ABSENT
        assert "install" in check.mend


def test_off_a_jetson_there_is_no_jetson_and_no_power_mode(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "read_text", lambda path: "")
    monkeypatch.setattr(machine, "output_of", lambda *command, timeout_s=10: "")
    assert checks.check_jetson() == Check("Jetson", ABSENT, "not a Jetson")
    assert machine.power_mode() is None


@pytest.mark.parametrize(
    ("answer", "state", "told"),
    [
        ((True, "started"), OK, "starts"),
        ((True, "no provider"), MISSING, "built without it"),
        ((False, "libcublasLt.so.12: cannot open"), MISSING, "libcublasLt"),
    ],
)
def test_with_a_gpu_the_cuda_provider_is_tried_and_its_reason_told(
    monkeypatch, answer, state, told
):
    monkeypatch.setattr(machine, "gpus", lambda: GPU)
    monkeypatch.setattr(machine, "probe", lambda code, timeout_s=0: answer)
    check = checks.check_onnxruntime_cuda()
    assert check.state == state
    assert told in check.found


def test_the_model_that_tries_a_provider_is_one_that_onnx_runtime_loads():
    import numpy as np
    import onnxruntime as ort

    session = ort.InferenceSession(checks._IDENTITY_ONNX, providers=["CPUExecutionProvider"])
    one = np.ones(1, np.float32)
    assert session.run(None, {"x": one})[0] == one
    log = (
        "\x1b[1;31m2026-11-21 09:00:00.1 [E:onnxruntime:Default, provider_bridge_ort.cc:2195 "
        "TryGetProviderInfo_CUDA] Failed to load library libonnxruntime_providers_cuda.so with "
        "error: libcublasLt.so.12: cannot open shared object file\x1b[m\n"
        "\x1b[0;93m2026-11-21 09:00:00.1 [W:onnxruntime:Default, x.cc:1] Failed to create\x1b[m\n"
    )
    assert machine.reason_of(log) == (
        "Failed to load library libonnxruntime_providers_cuda.so with "
        "error: libcublasLt.so.12: cannot open shared object file"
    )


def test_without_a_gpu_what_needs_one_is_absent_and_not_missing(monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: NO_GPU)
    for check in (
        checks.check_onnxruntime_cuda,
        checks.check_pycuda,
        checks.check_cuda_bindings,
    ):
        assert check().state in (ABSENT, OK)


@pytest.mark.skipif(Path("/dev/video0").exists(), reason="a camera is here")
def test_without_a_camera_it_says_what_else_can_be_a_source():
    (check,) = checks_video.check_cameras()
    assert check.state == ABSENT
    assert "--source" in check.mend


def test_a_device_that_gives_no_frame_is_told_with_the_reason():
    check = checks_video._check_camera(Path("/dev/video97"))
    assert check.state == MISSING
    assert check.mend


def test_a_check_that_fails_itself_is_a_finding():
    def check_the_weather():
        raise RuntimeError("rain")

    (check,) = doctor._answer(check_the_weather)
    assert (check.name, check.state) == ("the weather", MISSING)
    assert "RuntimeError: rain" in check.found


def found(*names, torch="2.13.0, trains on the CPU"):
    checks = [Check(name, OK, torch if name == "torch" else "1.0") for name in names]
    return {"all": checks}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "This machine runs nothing yet: pip install 'pix2pix-edge[cpu]'"),
        (
            ("ONNX Runtime", "OpenCV", "ONNX Runtime CUDA"),
            "This machine runs live on ONNX Runtime (CUDA).",
        ),
        (
            ("torch", "training packages", "TensorRT-RTX", "ONNX Runtime", "OpenCV"),
            "This machine trains on the CPU, exports to ONNX, builds TensorRT-RTX engines, "
            "and runs live on ONNX Runtime (CPU, ",
        ),
        (
            ("TensorRT", "ONNX Runtime", "OpenCV", "ONNX Runtime CUDA"),
            "This machine builds TensorRT engines, and runs live on ONNX Runtime (CUDA).",
        ),
    ],
)
def test_the_conclusion_names_what_works(names, told):
    assert conclude(found(*names)).startswith(told)


def test_the_conclusion_names_the_gpu_where_training_uses_it():
    names = ("torch", "training packages", "ONNX Runtime", "OpenCV", "ONNX Runtime CUDA")
    assert conclude(found(*names, torch="2.13.0, trains on the GPU")) == (
        "This machine trains on the GPU, exports to ONNX, and runs live on ONNX Runtime (CUDA)."
    )


def test_the_conclusion_tells_how_to_run_models_where_only_training_works():
    checks = found("torch", "training packages", "OpenCV")
    checks["all"].append(Check("ONNX Runtime", MISSING, "not installed", "pip install this"))
    assert conclude(checks).endswith("To run models: pip install this.")
