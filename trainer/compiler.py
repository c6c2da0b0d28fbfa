"""What `torch.compile` calls on this machine, looked for before a run starts."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from trainer.errors import ConfigError


def check_compiler() -> None:
    """Refuse `--compile` where what it needs beside torch is missing.

    Raises:
        ConfigError: no C++ compiler, or no headers of Python.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), None)
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if not compiler or not headers.exists():
        raise ConfigError(
            f"--compile without {'Python.h' if compiler else 'a C++ compiler'}",
            "a C++ compiler and Python's headers, which torch.compile calls",
            "install them (Debian: apt-get install g++ python3-dev), or leave --compile out",
        )
