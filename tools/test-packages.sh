#!/bin/sh
# The real counterparts that tests talk to: an RTSP server, GStreamer, FFmpeg, an X screen. Root gets
# them installed; for anyone else the tests that need a missing one are skipped, with its name.
set -eu
command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || exit 0

missing=""
for package in ffmpeg gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
    gstreamer1.0-plugins-ugly gstreamer1.0-plugins-bad gstreamer1.0-rtsp \
    gir1.2-gst-rtsp-server-1.0 python3-gi xvfb xdotool x11-xserver-utils
do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q ' installed$' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && $install
else
    echo "note: some tests will be skipped; for all of them: sudo $install" >&2
fi
