"""What a remote engine sends, for each encoding, and what it concludes from the response."""

import base64
import json
import math
import subprocess
import sys
import textwrap
from dataclasses import replace

import cv2
import numpy as np
import pytest
from chat_server import CELL, MODEL, ChatServer
from fake_metrics import metrics_of_scores

from delayed_vlm_ros.errors import (
    BadRequestError,
    ConfigurationError,
    NoFramesError,
    ServerError,
    UnsupportedModelError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.remote.address import ServerAddress, is_remote, parse_address
from delayed_vlm_ros.inference.remote.encodings import JpegCache, encode, has_even_times
from delayed_vlm_ros.inference.remote.model import remote_model
from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.inference.request import AskRequest, AskResult
from delayed_vlm_ros.inference.yes_no import yes_no_of_tokens
from delayed_vlm_ros.memory import SmartFrameManager

QUESTION = "What is on the left?"
HEIGHT, WIDTH = 2 * CELL, 3 * CELL
EVEN = tuple(0.5 * number for number in range(8))
UNEVEN = (0.0, 0.5, 1.0, 1.5, 60.0, 60.5, 61.0, 61.5)


def filled_memory(stamps=EVEN, height=HEIGHT, width=WIDTH):
    memory = SmartFrameManager(12, 12)
    for number, stamp in enumerate(stamps):
        memory.add(np.full((height, width, 3), 20 * (number + 1), np.uint8), stamp + 100.0)
    return memory


@pytest.fixture
def server():
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture
def ask(server):
    """Return a function that asks one question about a memory with settings."""
    engines = []

    def ask_once(memory, question=QUESTION, *, engine=None, **settings):
        if engine is None:
            model = remote_model(f"openai:{server.url}", RemoteSettings(frame_multiple=CELL, **settings))
            engine = model.engine(memory, model.connect())
            engines.append(engine)
        ask_once.engine = engine
        return engine.answer(AskRequest(question), AskControl())

    yield ask_once
    for engine in engines:
        engine.close()


def shown(image_url):
    """Return the mean value of a JPEG in a data address."""
    data = base64.b64decode(image_url.partition(",")[2])
    return round(float(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).mean()))


# --- encodings -------------------------------------------------------------------------------------------------------


def test_timed_images_are_one_frame_of_each_pair_after_its_time_and_the_question_is_last(server, ask):
    ask(filled_memory(UNEVEN), encoding=Encoding.TIMED_IMAGES)
    *parts, question = server.chats[-1].parts
    assert question == {"type": "text", "text": QUESTION}
    assert [part["text"] for part in parts[::2]] == [
        f"<{seconds} seconds>" for seconds in ("0.0", "1.0", "60.0", "61.0")
    ]
    assert [shown(part["image_url"]["url"]) for part in parts[1::2]] == [20, 60, 100, 140]


def test_images_have_their_times_in_words(server, ask):
    ask(filled_memory(), encoding=Encoding.IMAGES)
    assert [part["text"] for part in server.chats[-1].parts[:-1:2]] == [
        f"Image at {seconds} s:" for seconds in ("0.0", "1.0", "2.0", "3.0")
    ]


def test_video_has_all_frames_with_their_times(server, ask):
    ask(filled_memory(UNEVEN), encoding=Encoding.VIDEO)
    chat = server.chats[-1]
    kind, _, data = chat.items[0]["video_url"]["url"].partition(",")
    assert kind == "data:video/jpeg;base64"
    assert [shown(f",{one}") for one in data.split(",")] == [20 * number for number in range(1, 9)]
    times = chat.json["media_io_kwargs"]["video"]
    assert [index / times["fps"] for index in times["frames_indices"]] == list(UNEVEN)
    assert times["num_frames"] == -1  # otherwise vLLM cuts after 32 frames
    assert times["do_sample_frames"] is False


def test_even_video_lasts_as_long_as_its_frames(server, ask):
    ask(filled_memory(EVEN), encoding=Encoding.VIDEO)
    times = server.chats[-1].json["media_io_kwargs"]["video"]
    frames = len(times["frames_indices"])
    assert times["fps"] * frames / times["total_num_frames"] == 2.0  # the rate of EVEN


def test_pair_with_one_frame_is_a_whole_pair_of_the_video(server, ask):
    ask(filled_memory(EVEN[:5]), encoding=Encoding.VIDEO)
    chat = server.chats[-1]
    data = chat.items[0]["video_url"]["url"].partition(",")[2].split(",")
    assert len(data) == 6
    assert data[-1] == data[-2]
    assert chat.json["media_io_kwargs"]["video"]["frames_indices"] == [0, 5, 10, 15, 20, 20]


def test_single_frame_is_a_video(server, ask):
    assert ask(filled_memory(EVEN[:1]), encoding=Encoding.VIDEO).answer == server.answer


@pytest.mark.parametrize(
    ("trusts_kwargs", "writes_times", "expected"),
    [
        (True, True, Encoding.TIMED_IMAGES),
        (True, False, Encoding.VIDEO),
        (False, True, Encoding.IMAGES),
        (False, False, Encoding.IMAGES),
    ],
)
def test_auto_chooses_what_server_and_model_offer(server, ask, trusts_kwargs, writes_times, expected):
    server.trusts_kwargs, server.writes_times = trusts_kwargs, writes_times
    result = ask(filled_memory())
    assert ask.engine._connection.capabilities(AskControl()).encoding is expected
    assert not result.metrics.exact
    assert len(result.metrics.warnings) == 1
    assert result.metrics.warnings[0].startswith("remote engine: ")


def test_video_is_refused_where_the_server_would_cut_it(server, ask):
    server.trusts_kwargs = False
    with pytest.raises(ServerError, match="--trust-request-mm-kwargs"):
        ask(filled_memory(), encoding=Encoding.VIDEO)


@pytest.mark.parametrize(("stamps", "is_even"), [(EVEN, True), (UNEVEN, False), (EVEN[:1], True), (EVEN[:5], True)])
def test_uneven_times_are_a_warning_if_the_model_has_one_interval(server, ask, stamps, is_even):
    server.writes_times = False
    memory = filled_memory(stamps)
    assert has_even_times(memory.snapshot()) is is_even
    warnings = ask(memory, encoding=Encoding.VIDEO).metrics.warnings
    assert any("uneven times" in warning for warning in warnings) is not is_even
    server.writes_times = True
    assert "uneven times" not in str(ask(memory, encoding=Encoding.VIDEO).metrics.warnings)


def test_same_image_in_two_pairs_travels_once_and_keeps_both_times(server, ask):
    memory = SmartFrameManager(12, 12)
    image = np.full((HEIGHT, WIDTH, 3), 50, np.uint8)
    for stamp in EVEN[:4]:
        memory.add(image, stamp)
    result = ask(memory, encoding=Encoding.TIMED_IMAGES)
    assert (result.metrics.frames_encoded, result.metrics.frames_reused) == (1, 1)
    assert [part["text"] for part in server.chats[-1].parts[:-1:2]] == ["<0.0 seconds>", "<1.0 seconds>"]


def test_second_question_about_an_unchanged_video_sends_its_name(server, ask):
    memory = filled_memory()
    first = ask(memory, encoding=Encoding.VIDEO)
    second = ask(memory, encoding=Encoding.VIDEO, engine=ask.engine)
    assert (first.metrics.frames_encoded, second.metrics.frames_encoded, second.metrics.frames_reused) == (8, 0, 8)
    assert second.metrics.bytes_sent < 1000
    memory.add(np.full((HEIGHT, WIDTH, 3), 99, np.uint8), 200.0)
    assert ask(memory, engine=ask.engine).metrics.frames_encoded == 10


def test_name_of_a_video_depends_on_its_times():
    jpegs = JpegCache(90)

    def name(stamps):
        return encode(filled_memory(stamps).snapshot(), Encoding.VIDEO, jpegs, frame_multiple=CELL, held=()).names

    assert name(EVEN) == name(EVEN)
    assert name(EVEN) != name(UNEVEN)


@pytest.mark.parametrize("encoding", [Encoding.TIMED_IMAGES, Encoding.VIDEO])
def test_name_of_an_item_depends_on_the_quality(encoding):
    snapshot = filled_memory().snapshot()
    names = [encode(snapshot, encoding, JpegCache(quality), frame_multiple=CELL, held=()).names for quality in (80, 90)]
    assert set(names[0]).isdisjoint(names[1])


def test_fewer_tokens_than_frames_of_a_video_are_an_error(server, ask):
    memory = filled_memory(height=3 * HEIGHT, width=3 * WIDTH)
    model = remote_model(f"openai:{server.url}", RemoteSettings(frame_multiple=CELL // 2, encoding=Encoding.VIDEO))
    engine = model.engine(memory, model.connect())
    with pytest.raises(ServerError, match=r"remote\.frame_multiple"):
        ask(memory, engine=engine)
    engine.close()


def test_fewer_tokens_than_images_are_a_warning(server, ask):
    memory = filled_memory(height=3 * HEIGHT, width=3 * WIDTH)
    model = remote_model(f"openai:{server.url}", RemoteSettings(frame_multiple=CELL // 2, encoding=Encoding.IMAGES))
    engine = model.engine(memory, model.connect())
    assert "smaller frames" in ask(memory, engine=engine).metrics.warnings[-1]
    engine.close()


# --- requests --------------------------------------------------------------------------------------------------------


def test_limits_select_the_frames_that_are_sent(server, ask):
    memory = filled_memory()
    ask(memory, encoding=Encoding.TIMED_IMAGES)
    result = ask.engine.answer(AskRequest(QUESTION, last_sec=1.5))
    assert [kept.stamps for kept in result.frames_used] == [(102.0, 102.5), (103.0, 103.5)]
    assert [part["text"] for part in server.chats[-1].parts[:-1:2]] == ["<0.0 seconds>", "<1.0 seconds>"]
    with pytest.raises(NoFramesError):
        ask.engine.answer(AskRequest(QUESTION, since=1000.0))


def test_answer_at_its_length_limit_is_a_warning(server, ask):
    server.answer = "one two three four five"
    ask(filled_memory())
    result = ask.engine.answer(AskRequest(QUESTION, max_new_tokens=2))
    assert (result.answer, result.metrics.finish_reason) == ("one two", "length")
    assert "answer cut at 2 tokens" in result.metrics.warnings[-1]


def test_chain_of_thought_is_no_answer(server, ask):
    server.answer = "The user wants to know … </think> a red box"
    with pytest.raises(UnsupportedModelError, match="Instruct"):
        ask(filled_memory())


def test_model_is_the_only_one_of_the_server(server, ask):
    ask(filled_memory())
    assert server.chats[-1].json["model"] == MODEL


def test_answer_does_not_depend_on_the_robots_luck(server, ask):
    ask(filled_memory())
    assert server.chats[-1].json["temperature"] == 0.0


# --- scores ----------------------------------------------------------------------------------------------------------


def test_questions_are_scored_by_their_first_token(server, ask):
    server.yes = 0.75
    ask(filled_memory())
    chats = len(server.chats)
    result = ask.engine.score(["Is it red?", "Is it blue?", "Is it far?"], window_sec=1.0)
    assert [score.p_yes for score in result.scores] == pytest.approx([0.75] * 3, abs=0.01)
    assert server.chats[chats].parts[-1]["text"] == "Is it red?"
    assert {chat.parts[-1]["text"] for chat in server.chats[chats:]} == {"Is it red?", "Is it blue?", "Is it far?"}
    assert {chat.json["max_tokens"] for chat in server.chats[chats:]} == {1}
    assert all(kept.stamps[0] >= 102.0 for kept in result.frames_used)
    assert not sum(chat.items_with_data for chat in server.chats[chats:])
    with pytest.raises(BadRequestError):
        ask.engine.score([])


def test_given_frames_travel_instead_of_the_kept_ones(server, ask):
    ask(filled_memory(EVEN[:2]))
    frames = filled_memory().snapshot()[1:3]
    chats = len(server.chats)
    assert ask.engine.answer(AskRequest(QUESTION), frames=frames).frames_used == frames
    assert ask.engine.score([QUESTION], frames=frames).frames_used == frames
    assert [(len(chat.items), chat.items_with_data) for chat in server.chats[chats:]] == [(2, 2), (2, 0)]
    with pytest.raises(NoFramesError):
        ask.engine.score([QUESTION], frames=())


def test_first_score_sends_each_image_once(server):
    model = remote_model(f"openai:{server.url}", RemoteSettings(frame_multiple=CELL))
    engine = model.engine(filled_memory(), model.connect())
    engine.score(["Is it red?", "Is it blue?", "Is it far?"])
    assert sum(chat.items_with_data for chat in server.chats if chat.parts[-1]["text"].startswith("Is it")) == 4
    engine.close()


@pytest.mark.parametrize(
    ("tokens", "p_yes", "mass", "first"),
    [
        ([("Yes", math.log(0.6)), ("yes", math.log(0.2)), ("No", math.log(0.1))], 8 / 9, 0.9, "Yes"),
        ([(" no", math.log(0.9)), ("It", math.log(0.01))], 0.01 / 0.91, 0.91, " no"),
        ([("It", math.log(0.9)), ("The", math.log(0.05))], 0.5, 0.0, "It"),
        ([("yes", float("nan")), ("no", math.log(0.5)), ("x", math.log(0.1))], 0.1 / 0.6, 0.6, "no"),
        ([], 0.5, 0.0, ""),
    ],
)
def test_probability_of_yes_from_the_first_tokens(tokens, p_yes, mass, first):
    score = yes_no_of_tokens(tokens)
    assert (score.p_yes, score.mass, score.first_token) == (pytest.approx(p_yes), pytest.approx(mass), first)


def test_refused_standing_question_names_the_server(server):
    model = remote_model(f"openai:{server.url}", RemoteSettings(frame_multiple=CELL))
    connection = model.connect()
    engine = model.engine(filled_memory(), connection)
    connection._capabilities = replace(connection.capabilities(AskControl()), reports_scores=False)
    with pytest.raises(UnsupportedModelError, match=connection.address.host):
        engine.score(["Is it red?"])
    engine.close()


# --- fallback --------------------------------------------------------------------------------------------------------


class LocalEngine:
    def __init__(self):
        self.questions = []

    def answer(self, request, control=None, *, frames=None):
        self.questions.append(request.question)
        return AskResult("from here", metrics_of_scores("demo model"), ())


@pytest.fixture
def with_fallback(server):
    local = LocalEngine()
    model = remote_model(f"openai:{server.url}", RemoteSettings(frame_multiple=CELL))
    connection = model.connect()
    remote = model.engine(filled_memory(), connection)
    yield model.with_fallback(remote, connection, lambda: local, "demo"), connection, local
    connection.close()


def test_model_on_this_machine_answers_while_the_server_is_away_and_says_so(server, with_fallback):
    engine, connection, local = with_fallback
    assert engine.answer(AskRequest(QUESTION)).answer == server.answer
    server.kill()
    result = engine.answer(AskRequest(QUESTION))
    assert result.answer == "from here"
    fallback, demo = result.metrics.warnings
    assert demo == "demo model"
    assert "demo" in fallback
    assert connection.address.host in fallback
    # when it is back
    server.start()
    assert engine.answer(AskRequest(QUESTION)).answer == "from here"  # not tried before the next check
    connection.check(AskControl())
    result = engine.answer(AskRequest(QUESTION))
    assert (result.answer, local.questions) == (server.answer, [QUESTION] * 2)
    assert "fallback" not in str(result.metrics.warnings)


def test_model_on_this_machine_does_not_answer_for_a_server_that_refuses(server, with_fallback):
    engine, _, local = with_fallback
    with pytest.raises(BadRequestError):
        engine.answer(AskRequest("what is <|im_end|>?"))
    server.model = "another"
    model = remote_model(f"openai:{server.url}#unknown", RemoteSettings(frame_multiple=CELL))
    connection = model.connect()
    engine = model.with_fallback(model.engine(filled_memory(), connection), connection, lambda: local, "demo")
    for _ in range(2):
        with pytest.raises(ServerError):
            engine.answer(AskRequest(QUESTION))
    assert local.questions == []
    connection.check(AskControl())  # the server is there
    assert "unknown" in connection.fault  # and still does not serve the model
    connection.close()


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "base_url", "model"),
    [
        (
            "openai:http://server:8000/v1#Qwen/Qwen3-VL-8B-Instruct",
            "http://server:8000/v1",
            "Qwen/Qwen3-VL-8B-Instruct",
        ),
        (" openai:https://server/v1/ ", "https://server/v1", ""),
        ("openai:http://[::1]:8000/v1#m", "http://[::1]:8000/v1", "m"),
    ],
)
def test_address_of_a_server(name, base_url, model):
    assert is_remote(name)
    assert parse_address(name) == ServerAddress(base_url, model)
    assert parse_address(str(parse_address(name))) == ServerAddress(base_url, model)


@pytest.mark.parametrize(
    "name",
    [
        *("openai:", "openai:server:8000", "openai:ftp://server/v1", "openai:http://", "openai:http://server:x/v1"),
        *("openai:http://server/v1?key=1", "openai:http://ser ver/v1", "openai:http://server:70000/v1"),
    ],
)
def test_invalid_address_is_refused_with_an_example(name):
    with pytest.raises(ConfigurationError, match="openai:http://server:8000/v1#"):
        parse_address(name)


def test_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(ConfigurationError, match=r"remote\.api_key_env") as caught:
        parse_address("openai:http://me:secret@server:8000/v1")
    assert "secret" not in str(caught.value)


def test_name_of_another_model_is_no_address():
    assert not is_remote("Qwen/Qwen2.5-VL-3B-Instruct")
    assert not is_remote("openai/clip")


@pytest.mark.parametrize("value", [None, "", "  "])
def test_missing_key_is_reported_with_both_names(monkeypatch, value):
    monkeypatch.delenv("ROBOT_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("ROBOT_KEY", value)
    with pytest.raises(ConfigurationError, match=r"ROBOT_KEY.*remote\.api_key_env"):
        remote_model("openai:http://server:8000/v1", RemoteSettings(api_key_env="ROBOT_KEY"))


def test_key_on_an_unencrypted_connection_is_a_warning(monkeypatch):
    monkeypatch.setenv("ROBOT_KEY", "x")
    settings = RemoteSettings(api_key_env="ROBOT_KEY")
    assert "unencrypted" in remote_model("openai:http://server/v1", settings).warnings[0]
    assert not remote_model("openai:https://server/v1", settings).warnings


def test_frames_too_small_for_a_cell_are_refused():
    with pytest.raises(ConfigurationError, match="max_pixels"):
        remote_model("openai:http://server/v1").geometry(500)


# --- without torch ---------------------------------------------------------------------------------------------------


def test_remote_engine_needs_neither_torch_nor_transformers(server):
    code = f"""
        import json, sys
        import numpy as np
        sys.modules["torch"] = sys.modules["transformers"] = None  # an import fails
        from delayed_vlm_ros.inference.remote.model import remote_model
        from delayed_vlm_ros.inference.request import AskRequest
        from delayed_vlm_ros.memory import SmartFrameManager

        memory = SmartFrameManager(4, 4)
        memory.add(np.zeros((64, 64, 3), np.uint8), 1.0)
        model = remote_model("openai:{server.url}")
        print(json.dumps(model.engine(memory, model.connect()).answer(AskRequest("What?")).answer))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert json.loads(result.stdout or '"nothing"') == server.answer, result.stderr
