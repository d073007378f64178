"""The file of watches: what is saved is loaded, and an unusable file is set aside with a warning."""

import json
import stat
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.errors import MemoryFileError
from delayed_vlm_ros.watches.store import FILE, StoredWatch, StoredWatches, WatchStore
from delayed_vlm_ros.watches.watch import Gate, Watch

DOOR = StoredWatch(
    Watch("door", "Ist die Tür offen?", camera="front", gate=Gate.ON_CHANGE, hold_sec=3.0),
    of_client=True,
    added_at=1.8e9,
)


@pytest.fixture
def store(tmp_path):
    return WatchStore(str(tmp_path))


seconds = st.floats(0.5, 1e4)


@given(
    question=st.text(min_size=1).filter(str.strip),
    names=st.lists(st.text("abc é_-", min_size=1, max_size=9).filter(str.strip), unique=True, max_size=5),
    period=seconds,
    alerted_at=st.none() | seconds,
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    alerts=st.integers(0, 2**62),
)
def test_what_is_saved_is_loaded(tmp_path_factory, question, names, period, alerted_at, flags, alerts):
    store = WatchStore(str(tmp_path_factory.mktemp("folder")))
    of_client, was_yes, is_alerted = flags
    watches = tuple(
        StoredWatch(Watch(name, question, period_sec=period), of_client, 1.5, was_yes, is_alerted, alerted_at)
        for name in names
    )
    store.save(watches, alerts)
    assert store.load() == StoredWatches(watches, alerts)
    assert store.load().warning == ""


def test_folder_without_a_file_has_no_watches(store):
    assert store.load() == StoredWatches()


def test_file_is_for_its_owner_only_and_replaces_the_previous_one(store, tmp_path):
    store.save([DOOR], 1)
    store.save([DOOR, replace(DOOR, watch=replace(DOOR.watch, name="other"))], 2)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert len(store.load().watches) == 2


def changed(**values):
    return {"version": 1, "alerts": 0, "watches": [], **values}


def one_watch(**values):
    settings = {**vars(DOOR.watch), "gate": "every", **values.pop("watch", {})}
    return changed(watches=[{"watch": settings, "of_client": True, "added_at": 1.0, **values}])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        "\udcff",
        json.dumps(changed(version=2)),
        json.dumps(changed(alerts=-1)),
        json.dumps(changed(alerts="many")),
        json.dumps(changed(watches={})) + "x",
        json.dumps(one_watch(of_client="yes")),
        json.dumps(one_watch(added_at="now")),
        json.dumps(one_watch(added_at=float("nan"))),
        json.dumps(one_watch(added_at=10**400)),
        json.dumps(one_watch(more=1)),
        json.dumps(one_watch(watch={"gate": "sometimes"})),
        json.dumps(one_watch(watch={"question": ""})),
        json.dumps(one_watch(watch={"question": 7})),
        json.dumps(one_watch(watch={"period_sec": -1.0})),
        json.dumps(one_watch(watch={"period_sec": True})),
        json.dumps(one_watch(watch={"speed": 1.0})),
        json.dumps(changed(watches=one_watch()["watches"] * 2)),
        " " * (1 << 21),
    ],
)
def test_unusable_file_is_set_aside_with_a_warning(store, tmp_path, content):
    (tmp_path / FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
    loaded = store.load()
    assert loaded == StoredWatches()
    assert "aside" in loaded.warning
    assert not (tmp_path / FILE).exists()
    # and the next file can be written and read
    store.save([DOOR], 3)
    assert store.load() == StoredWatches((DOOR,), 3)


def test_links_are_not_followed(store, tmp_path):
    target = tmp_path / "target"
    target.write_text(json.dumps(changed()))
    (tmp_path / FILE).symlink_to(target)
    assert "cannot read" in store.load().warning
    store.save([DOOR], 1)
    assert target.read_text() == json.dumps(changed())
    assert store.load().watches == (DOOR,)


def test_folder_that_is_gone_is_an_error(store, tmp_path):
    tmp_path.rmdir()
    with pytest.raises(MemoryFileError, match=FILE):
        store.save([DOOR], 1)


def test_file_that_is_a_folder_is_set_aside(store, tmp_path):
    (tmp_path / FILE).mkdir()
    assert "aside" in store.load().warning
    store.save([DOOR], 1)
    assert store.load().watches == (DOOR,)


def test_file_that_could_not_be_read_back_is_not_written(store):
    store.save([DOOR], 1)
    long = [
        replace(DOOR, watch=replace(DOOR.watch, name=f"door {number}", question="x" * 10_000)) for number in range(200)
    ]
    with pytest.raises(MemoryFileError, match="shorter questions"):
        store.save(long, 2)
    assert store.load() == StoredWatches((DOOR,), 1)
