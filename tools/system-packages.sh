#!/bin/sh
# What pip cannot bring: Python's venv, and the libraries that the opencv-python wheel links to.
# Installs them where it may; elsewhere says the line to type.
set -eu
python=${1:-python3}

missing=""
need() { missing="$missing $1"; }
"$python" -c 'import ensurepip' 2>/dev/null || need python3-venv
for pair in libGL.so.1:libgl1 libglib-2.0.so.0:libglib2.0-0 libSM.so.6:libsm6 libXext.so.6:libxext6
do
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q "${pair%%:*}" || need "${pair##*:}"
done

if [ -n "$missing" ]; then
    install="apt-get install -y --no-install-recommends$missing"
    if ! command -v apt-get >/dev/null; then
        echo "error: this system lacks$missing; expected Debian or Ubuntu; install them by hand" >&2
        exit 2
    elif [ "$(id -u)" = 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq && $install
    elif command -v sudo >/dev/null; then
        echo "installing$missing (sudo apt-get)"
        sudo apt-get update -qq && sudo $install
    else
        echo "error: this system lacks$missing; type as root: $install" >&2
        exit 2
    fi
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "error: $("$python" --version); expected Python 3.10 or later; name one: make PYTHON=python3.12" >&2
    exit 2
fi
