"""Signals, such as Ctrl-C and those of children that end, beside an engine that came and went."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import faulthandler, gc, signal, subprocess, sys, threading
faulthandler.enable()  # as test runners do: it puts a signal stack under the main thread
heard = []
signal.signal(signal.SIGCHLD, lambda *_: heard.append(1))
import numpy as np
from runtime.engines import open_engine
engines = [open_engine(sys.argv[1], sys.argv[2], 1)]
engines[0].infer(np.zeros((1, 48, 104, 3), np.uint8))
def close():
    engines.pop().close()
    gc.collect()
closing = threading.Thread(target=close)
closing.start()
closing.join()
subprocess.run([sys.executable, "-c", ""], check=True)
assert heard
"""


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="signals of POSIX")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_closed_in_another_thread_leaves_the_first_one_its_signals(
    negative_onnx, engine
):
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    ran = subprocess.run(
        [sys.executable, "-c", CODE, str(negative_onnx), engine],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
