"""Addresses are taken apart, and told without their passwords."""

import pytest

from runtime.uris import address_of, redacted, redacted_pipeline, without_secrets


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


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://user:SEC RET@host/x",
        "rtsp:/user:SECRET@host/x",
        "//user:SECRET@host/x",
        "user:SECRET@host/x",
        *(
            f"http://h/v.cgi?{key}=SECRET&q=1"
            for key in (
                "loginpas", "access_token", "X-Amz-Signature", "X-Amz-Credential", "authkey",
                "session", "jwt", "streamkey", "userpwd", "psw", "client_secret", "sid",
            )
        ),
        "http://h/?TOKEN%3dSECRET",
    ],
)  # fmt: skip
def test_no_spelling_of_a_secret_is_told(uri):
    assert "SEC" not in redacted(uri)
    assert "RET" not in redacted(uri)


@pytest.mark.parametrize(
    "text", ["C:\\a@b\\c.mp4", "frames/*.png", "rtsp://h:554/a@1", "udp://@:5000"]
)
def test_what_has_no_secret_is_told_whole(text):
    assert redacted(text) == text.replace("@:", ":")


@pytest.mark.parametrize(
    "option",
    ["passphrase=SECRET", "cookies=SECRET", 'extra-headers="h,Authorization=SECRET"',
     'user-pw="SEC\\"RET"', "password=SEC&RET", "proxy-pw=SECRET"],
)  # fmt: skip
def test_the_secrets_of_a_pipeline_are_not_told(option):
    told = redacted_pipeline(f"souphttpsrc {option} ! decodebin")
    assert "SEC" not in told
    assert "RET" not in told
    assert told.endswith("! decodebin")


def test_an_address_that_listens_has_no_host():
    for uri in ("udp://@:5000", "udp://:5000"):
        address = address_of(uri)
        assert (address.scheme, address.host, address.port) == ("udp", "", 5000)
    assert address_of("rtsp://:554/x") is None
