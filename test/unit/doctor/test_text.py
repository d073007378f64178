"""Text from outside is safe to show, and a support file has no secrets."""

import pytest

from delayed_vlm_ros.doctor.finding import warn
from delayed_vlm_ros.doctor.text import Redactor, is_secret_name, printable

SECRET = "planted-0123456789"


@pytest.mark.parametrize("text", ["\x1b[2Jgone", "a\nb", "\x07", "\u202eexe.txt", "\x9b31m", "\r"])
def test_control_characters_are_escaped(text):
    assert printable(text).isprintable()
    assert warn("topic", text, text).line.isprintable()


def test_long_text_is_shortened():
    assert len(printable("x" * 100_000)) < 1100


@pytest.mark.parametrize(
    "url",
    [
        f"rtsp://operator:{SECRET}@camera/1",
        f"http://operator:pass/{SECRET}@camera",
        f"http://:{SECRET}@camera",
        f"https://{SECRET}@hub/x",
        f"cannot open 'rtsp://a:{SECRET}@b': refused",
        f"rtsp://operator:two {SECRET}@camera",
        f"rtsp://operator:a'{SECRET}@camera",
        f"rtsp://a:{SECRET}@b, rtsp://c:{SECRET}@d",
    ],
)
def test_credentials_in_a_url_are_masked(url):
    for shown in (printable(url), warn("video", url).line, Redactor({}).redact(url)):
        assert SECRET not in shown
        assert "://<removed>@" in shown


@pytest.mark.parametrize(
    "address",
    [f"rtsp:/operator:{SECRET}@camera", f"rtsp://camera/?password=two {SECRET}", f"http://h/?key={SECRET}: refused"],
)
def test_secret_in_an_address_is_masked_in_every_line(address):
    assert SECRET not in printable(address)
    assert "<removed>" in printable(address)


@pytest.mark.parametrize(
    "text",
    [
        f"token: {SECRET}",
        f"DELAYED_VLM_WEB_TOKEN={SECRET}",
        f"http://robot:8080/?token={SECRET}&x=1",
        f'{{"password": "{SECRET}"}}',
        f"password='{SECRET}'",
        f"api_key := {SECRET}",
        f"Authorization: Bearer {SECRET}",
        "hf_abcdefghijklmnopqrstuv0123456789",
        "the value of the variable, known_secret_value, in a log",
    ],
)
def test_secret_in_a_log_is_removed(text):
    redacted = Redactor({"CAMERA_PASSWORD": "known_secret_value"}).redact(text)
    assert "<removed>" in redacted
    assert not any(secret in redacted for secret in (SECRET, "hf_abc", "known_secret_value"))


@pytest.mark.parametrize(
    "text",
    [
        '"time_to_first_token": 0.25',
        "ask.max_new_tokens: 128",
        "visual_tokens 20",
        "time to first token: 0.3 s",
        "http://127.0.0.1:8080/",
        "tokenizer: fast",
        "http://robot:8080/ and mail to me@example.org",
        "topic:/front/image of me@example.org",
    ],
)
def test_text_without_a_secret_stays(text):
    assert Redactor({}).redact(text) == text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["a.", "http://a", "http://a:", "token='", "password=", "eyJ"])
def test_long_text_is_redacted_in_little_time(part):
    assert Redactor({"HOME": "/home/x"}).redact(part * 20_000)


def test_home_folder_is_replaced():
    redactor = Redactor({"HOME": "/home/operator"})
    assert redactor.redact("/home/operator/ws and /home/operators/x") == "~/ws and /home/operators/x"
    assert Redactor({"HOME": "/"}).redact("/opt/x") == "/opt/x"


def test_names_of_secrets_are_recognised():
    assert all(
        map(is_secret_name, ("HF_TOKEN", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "camera.pass", "API_KEY", "key"))
    )
    assert not any(
        map(is_secret_name, ("ask.max_new_tokens", "last_time_to_first_token", "ROS_DOMAIN_ID", "keyframes"))
    )
