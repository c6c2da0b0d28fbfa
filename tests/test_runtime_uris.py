"""Addresses are taken apart, and told without their passwords."""

import pytest

from runtime.uris import address_of, redacted, without_secrets


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://h:554/a@1", "rtsp://h:554/a@1"),
        ("rtsp://me:pw@h/x", "rtsp://me:***@h/x"),
        ("rtsp://me:p@w@h/x", "rtsp://me:***@h/x"),
        ("rtsp://me:p/w@h/x", "rtsp://me:***@h/x"),
        ("left=rtsp://me:pw@h/x", "left=rtsp://me:***@h/x"),
        ("http://h/v.cgi?user=me&pwd=pw&q=1", "http://h/v.cgi?user=me&pwd=***&q=1"),
        ("rtsp://h/user=me_password=pw_channel=1", "rtsp://h/user=me_password=***"),
        ("http://h/x?api_key=pw", "http://h/x?api_key=***"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_an_address_is_told_without_its_password(uri, shown):
    assert redacted(uri) == shown


def test_what_another_program_says_of_an_address_is_told_without_its_password():
    uri = "rtsp://me:p%40w@h/x"
    said = "failed: rtsp://me:p%40w@h:554/x?timeout=0, user me, password p@w"
    told = without_secrets(said, uri)
    assert "p@w" not in told
    assert "p%40w" not in told
    assert told.startswith("failed: rtsp://me:***@h")


def test_an_address_is_taken_apart():
    address = address_of("RTSP://me:p%40w@[fe80::1]:8554/a/b?c=d#e")
    assert (address.scheme, address.host, address.port) == ("rtsp", "fe80::1", 8554)
    assert (address.user, address.password, address.target) == ("me", "p@w", "/a/b?c=d")
    assert address.without_user == "rtsp://[fe80::1]:8554/a/b?c=d"
