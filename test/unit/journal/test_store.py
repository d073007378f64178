"""The file of the journal: what is added is found, within limits, and after every kind of failure."""

import math
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_entries import POSE, SECOND, captions, entry, open_store

from delayed_vlm_ros.errors import ConfigurationError, MemoryFileError
from delayed_vlm_ros.journal import JournalEntry, Pose, check_fts, store
from delayed_vlm_ros.journal.entry import MAX_CAPTION_CHARACTERS
from delayed_vlm_ros.journal.store import FILE

KILLS = 5
HELPER = Path(__file__).with_name("kill_while_adding.py")


@pytest.fixture
def journal(tmp_path):
    opened = open_store(tmp_path)
    yield opened
    opened.close()


# Content --------------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80)
numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
poses = st.builds(Pose, numbers, texts, st.tuples(floats, floats, floats), st.tuples(floats, floats, floats, floats))
entries = st.builds(
    JournalEntry,
    *(st.just(0), texts, texts, numbers, numbers, st.integers(1, 2**62), texts, texts, texts, st.none() | poses),
    st.binary(max_size=50),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(entries, max_size=4))
def test_what_is_added_is_returned_newest_first_also_after_a_restart(tmp_path_factory, added):
    folder = tmp_path_factory.mktemp("journal")
    journal = open_store(folder)
    ids = [journal.add(one) for one in added]
    expected = tuple(replace(one, id=row) for row, one in reversed(list(zip(ids, added, strict=True))))
    assert journal.lines(thumbnails=True).entries == expected
    journal.close()
    journal = open_store(folder)
    assert journal.lines(thumbnails=True).entries == expected
    assert journal.lines().entries == tuple(replace(one, thumbnail=b"") for one in expected)
    assert [journal.thumbnail(row) for row in ids] == [one.thumbnail for one in added]
    assert journal.counts().lines == len(added)
    journal.close()


def test_values_that_cannot_be_stored_are_replaced(journal):
    # given a text that is no Unicode, a pose that is no place, and an endless caption
    nowhere = replace(POSE, position=(math.nan, 0.0, 0.0))
    journal.add(entry("a \ud800 b\0c", pose=nowhere, label="\udfff"))
    journal.add(entry("long " * MAX_CAPTION_CHARACTERS))
    long, line = journal.lines().entries

    # then
    assert (line.caption, line.label, line.pose) == ("a ? b c", "?", None)
    assert len(long.caption) == MAX_CAPTION_CHARACTERS
    assert captions(journal.search("b c")) == ["a ? b c"]


def test_lines_are_limited_by_time_camera_number_and_id(journal):
    for at in range(1, 11):
        journal.add(entry(f"line {at}", at, camera="front" if at % 2 else "rear"))
    page = journal.lines(limit=3)
    assert (captions(page.entries), page.left) == (["line 10", "line 9", "line 8"], 7)
    page = journal.lines(limit=3, before_id=page.entries[-1].id)
    assert (captions(page.entries), page.left) == (["line 7", "line 6", "line 5"], 4)
    assert journal.lines(before_id=1) == store.JournalPage((), 0)
    assert captions(journal.lines(camera="rear", since=4.0).entries) == ["line 10", "line 8", "line 6", "line 4"]
    assert captions(journal.lines(since=3.0, until=5.5).entries) == ["line 5", "line 4", "line 3"]
    assert captions(journal.lines(until=5.499999).entries) == ["line 4", "line 3", "line 2", "line 1"]
    assert journal.count(since=9.0) == 2
    assert journal.count(camera="front") == 5
    assert journal.count(camera="no such camera") == 0
    assert journal.lines(since=1e300).entries == ()
    assert journal.lines(before_id=2**64 - 1).left == 0


@given(st.integers(0, 2**62))
def test_limits_with_the_stamp_of_a_line_include_it(stamp_ns):
    limits = store._limits(stamp_ns / SECOND, stamp_ns / SECOND, None)
    assert limits["since"] <= stamp_ns <= limits["until"]
    assert limits["until"] - limits["since"] < 2000


def test_lines_keep_the_order_of_writing_when_the_clock_was_set_back(journal):
    for at in (100, 101, 50, 51):
        journal.add(entry(f"at {at}", at))
    assert captions(journal.lines().entries) == ["at 51", "at 50", "at 101", "at 100"]
    assert captions(journal.lines(since=99.0).entries) == ["at 101", "at 100"]


# Search ---------------------------------------------------------------------------------------------------------------


def test_lines_with_all_words_come_first_and_have_the_larger_share(journal):
    for caption in (
        "A person walks through the door.",
        "A red box is on the table. The box is closed.",
        "The person is carrying a red box.",
        "Nothing moves.",
        "Persons carried boxes.",
    ):
        journal.add(entry(caption))
    found = journal.search("a person carries a red box")
    assert captions(found[:1]) == ["The person is carrying a red box."]
    assert [match.share for match in found] == [1.0, 0.75, 0.5, 0.25]
    assert captions(found[1:2]) == ["Persons carried boxes."]
    assert "Nothing moves." not in captions(found)
    assert captions(journal.search("a person carries a red box", limit=2)) == captions(found[:2])
    assert journal.search("elephant") == ()
    assert journal.search("") == journal.search("?!") == journal.search("box", limit=0) == ()


def test_lines_with_the_words_of_a_phrase_apart_come_after_those_with_the_phrase(journal):
    """A caption names several objects: the colour of one and the shape of another are no match."""
    for caption in (
        "a red ball, a blue box",
        "a blue box, a red ball",
        "on the left is a red box, on the right a ball",
    ):
        journal.add(entry(caption))
    found = journal.search("a red box")
    assert captions(found)[0] == "on the left is a red box, on the right a ball"
    assert [match.share for match in found] == [1.0, 1.0, 1.0]
    assert len(journal.search("a red box", limit=1)) == 1


@pytest.mark.parametrize(
    ("caption", "found_by"),
    [
        ("Eine grüne Tür steht offen.", "grune tur"),
        ("Une étagère près de l'entrée", "etagere entree"),
        ("ΜΙΑ ΠΟΡΤΑ", "πορτα"),
        ("красный МЯЧ", "мяч"),
        ("一个红色的球在桌子上", "红色的球"),
        ("机器人看到了門", "門"),
        ("किताब मेज़ पर", "किताब"),
        ("caf\u00e9", "cafe\u0301"),
        ('a sign says "NOT (here) OR near*"', '"NOT (here) OR near*"'),
        ("model X-200 at 5:30", "x-200 5:30"),
    ],
)
def test_captions_of_other_scripts_and_with_syntax_are_found(journal, caption, found_by):
    journal.add(entry("something else"))
    journal.add(entry(caption))
    found = journal.search(found_by)
    assert (captions(found), [match.share for match in found]) == ([caption], [1.0])


@pytest.mark.parametrize(
    "syntax", ["*", "OR", "a AND NOT b", '"', "text:red", "{text}:red", "^red", "(", "red -box", "\0"]
)
def test_syntax_of_queries_is_plain_text(journal, syntax):
    journal.add(entry("green cube"))
    assert journal.search(syntax) == ()


def test_search_is_limited_by_time_and_camera(journal):
    for at in range(1, 7):
        journal.add(entry("red box", at, camera="front" if at % 2 else "rear"))
    assert [match.entry.pair_id for match in journal.search("box", since=2.0, until=4.5)] == [4, 3, 2]
    assert [match.entry.pair_id for match in journal.search("box", camera="rear")] == [6, 4, 2]


def test_labels_are_searched_and_removed_lines_are_not_found(tmp_path):
    journal = open_store(tmp_path, max_rows=2)
    journal.add(entry("first", label="keys on the table"))
    assert captions(journal.search("keys")) == ["first"]
    journal.add(entry("second"))
    journal.add(entry("third"))
    assert journal.search("keys") == journal.search("first") == ()
    for table in ("entry", "words", "thumbnail"):  # no text and no image of a removed line stays
        assert journal._connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (2,)
    journal.close()


# Limits ---------------------------------------------------------------------------------------------------------------


def test_first_lines_are_removed_at_the_largest_number_of_rows(tmp_path):
    journal = open_store(tmp_path, max_rows=3)
    ids = [journal.add(entry(f"line {at}", at)) for at in range(1, 8)]
    assert ids == [1, 2, 3, 4, 5, 6, 7]
    assert captions(journal.lines().entries) == ["line 7", "line 6", "line 5"]
    assert journal.counts().lines == 3
    assert [journal.thumbnail(row) for row in (4, 5)] == [b"", b"\xff\xd8jpeg"]
    journal.close()


def test_file_does_not_grow_beyond_the_largest_size(tmp_path):
    journal = open_store(tmp_path, max_bytes=500_000)
    for at in range(1, 301):
        journal.add(entry(f"line {at}", at, thumbnail=os.urandom(4000)))
    lines = journal.lines(limit=1000).entries
    assert 60 < len(lines) < 125
    assert [line.pair_id for line in lines] == list(range(300, 300 - len(lines), -1))
    assert journal.counts().bytes <= 500_000
    journal.close()
    assert (tmp_path / FILE).stat().st_size < 600_000


def test_smaller_limits_of_a_restart_shrink_the_file(tmp_path):
    journal = open_store(tmp_path)
    for at in range(1, 301):
        journal.add(entry(f"line {at}", at, thumbnail=os.urandom(4000)))
    journal.close()
    assert (tmp_path / FILE).stat().st_size > 1_200_000
    journal = open_store(tmp_path, max_rows=200, max_bytes=400_000)
    assert journal.counts().lines < 90
    assert journal.lines(limit=1).entries[0].caption == "line 300"
    journal.close()
    assert (tmp_path / FILE).stat().st_size < 500_000


def test_line_larger_than_the_limit_is_kept_alone(tmp_path):
    journal = open_store(tmp_path, max_bytes=50_000)
    journal.add(entry("small"))
    journal.add(entry("large", thumbnail=os.urandom(200_000)))
    assert captions(journal.lines().entries) == ["large"]
    journal.add(entry("next"))
    assert captions(journal.lines().entries) == ["next"]
    journal.close()


# Privacy --------------------------------------------------------------------------------------------------------------


def files_of(folder):
    return {path.name: path for path in folder.iterdir()}


def test_files_are_for_their_owner_only_and_one_remains_at_the_end(tmp_path):
    before = os.umask(0)
    try:
        journal = open_store(tmp_path)
        journal.add(entry("secret"))
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
        assert len(files_of(tmp_path)) == 3
        journal.close()
    finally:
        os.umask(before)
    assert list(files_of(tmp_path)) == [FILE]
    (tmp_path / FILE).chmod(0o644)
    open_store(tmp_path).close()
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_clear_leaves_no_text_and_no_image_in_any_file(tmp_path):
    # given a journal, and one that was set aside
    (tmp_path / (FILE + ".aside")).write_text("secret")
    journal = open_store(tmp_path)
    for at in range(1, 50):
        journal.add(entry("a secret meeting", at, thumbnail=b"secret image" * 100))

    # when
    assert journal.clear() == 49

    # then
    assert journal.lines().entries == ()
    assert journal.search("secret") == ()
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.iterdir())
    assert FILE + ".aside" not in files_of(tmp_path)
    assert journal.add(entry("next")) == 50  # no id is used twice
    journal.close()


def test_link_is_not_followed(tmp_path):
    target = tmp_path / "elsewhere"
    target.write_bytes(b"")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / FILE).symlink_to(target)
    journal = open_store(folder)
    assert "not a regular file; set aside as journal.sqlite3.aside" in journal.warning
    journal.add(entry("line"))
    journal.close()
    assert target.read_bytes() == b""


# Failures -------------------------------------------------------------------------------------------------------------


def _other_version(path):
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")


def _other_program(path):
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (value)")


DAMAGES = {
    "garbage": lambda path: path.write_bytes(b"no database " * 1000),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "text": lambda path: path.write_text("hello"),
    "another version": _other_version,
    "another program": _other_program,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_unusable_file_is_set_aside_with_a_warning_and_a_new_one_begins(tmp_path, damage):
    journal = open_store(tmp_path)
    for at in range(1, 200):
        journal.add(entry(f"before {at}", at, thumbnail=os.urandom(3000)))
    journal.close()
    DAMAGES[damage](tmp_path / FILE)
    damaged = (tmp_path / FILE).read_bytes()

    journal = open_store(tmp_path)
    journal.add(entry("after"))
    assert captions(journal.lines().entries) == ["after"]
    assert "set aside as journal.sqlite3.aside, the journal starts empty" in journal.warning
    assert (tmp_path / (FILE + ".aside")).read_bytes() == damaged
    journal.close()


def test_file_that_is_damaged_while_it_is_open_is_set_aside_and_the_line_is_stored(tmp_path):
    journal = open_store(tmp_path)
    for at in range(1, 400):
        journal.add(entry(f"before {at}", at, thumbnail=os.urandom(3000)))
    journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal._connection.execute("PRAGMA cache_size = 0")
    size = (tmp_path / FILE).stat().st_size
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(MemoryFileError, match="set aside"):
        journal.search("before")
    journal.add(entry("after"))
    assert captions(journal.search("after")) == ["after"]
    assert "set aside as journal.sqlite3.aside" in journal.warning
    journal.close()


def test_empty_file_of_a_machine_that_failed_becomes_a_journal(tmp_path):
    (tmp_path / FILE).touch()
    journal = open_store(tmp_path)
    assert journal.warning == ""
    assert journal.add(entry("line")) == 1
    journal.close()


@pytest.mark.parametrize("part", ["half a frame", "flipped bit"])
def test_torn_last_line_of_a_power_failure_is_dropped_and_earlier_ones_stay(tmp_path, part):
    # given the files as they are on the disk while the node runs
    journal = open_store(tmp_path)
    for at in range(1, 20):
        journal.add(entry(f"line {at}", at))
    before_last = (tmp_path / (FILE + "-wal")).stat().st_size
    journal.add(entry("torn", 20))
    failed = tmp_path / "failed"
    failed.mkdir()
    for suffix in ("", "-wal"):
        (failed / (FILE + suffix)).write_bytes((tmp_path / (FILE + suffix)).read_bytes())
    journal.close()

    # when the last line is incomplete
    wal = failed / (FILE + "-wal")
    if part == "half a frame":
        os.truncate(wal, before_last + 2000)
    else:
        with wal.open("r+b") as file:
            file.seek(before_last + 1000)
            file.write(b"\xff\x00\xff")

    # then
    journal = open_store(failed)
    assert journal.warning == ""
    assert journal.counts().lines == 19
    assert journal.lines(limit=1).entries[0].caption == "line 19"
    assert journal.search("torn") == ()
    assert journal.add(entry("next")) == 20
    journal.close()


def test_full_disk_stores_nothing_and_goes_on_when_there_is_space(journal):
    journal.add(entry("before"))
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(MemoryFileError, match=r"cannot write .* full: check that .* free disk space"):
        journal.add(entry("lost", thumbnail=os.urandom(50_000)))
    assert captions(journal.lines().entries) == ["before"]
    assert journal.counts().lines == 1
    assert journal.search("lost") == ()
    journal._connection.execute("PRAGMA max_page_count = 1000000")
    journal.add(entry("after", thumbnail=os.urandom(50_000)))
    assert captions(journal.lines().entries) == ["after", "before"]


def test_read_only_file_is_an_error_and_can_still_be_read(journal):
    journal.add(entry("before"))
    journal._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(MemoryFileError, match="readonly"):
        journal.add(entry("lost"))
    assert captions(journal.search("before")) == ["before"]


def test_size_limit_of_the_process_is_an_error_and_loses_no_earlier_line(tmp_path):
    script = f"""
import os, resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from journal_entries import *
from delayed_vlm_ros.errors import MemoryFileError
store = open_store({str(tmp_path)!r})
store.add(entry("before"))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
added = 0
try:
    while True:
        store.add(entry("more", thumbnail=os.urandom(20_000)))
        added += 1
except MemoryFileError as error:
    print(added, store.counts().lines, error)
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    added, lines, reason = output.split(maxsplit=2)
    assert int(lines) == int(added) + 1 > 2
    assert "cannot write" in reason
    journal = open_store(tmp_path)
    assert journal.counts().lines == int(lines)
    journal.close()


def test_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(MemoryFileError, match=r"cannot open .*No such file or directory"):
        open_store(tmp_path / "missing")


def test_removed_file_is_noticed_and_a_new_one_begins(tmp_path):
    journal = open_store(tmp_path)
    journal.add(entry("before"))
    for path in tmp_path.iterdir():
        path.unlink()
    journal.add(entry("after"))
    assert "was removed or replaced" in journal.warning
    assert captions(journal.lines().entries) == ["after"]
    assert (tmp_path / FILE).exists()
    journal.close()
    assert captions(open_store(tmp_path).lines().entries) == ["after"]


def test_removed_folder_is_an_error_until_it_is_back(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    journal = open_store(folder)
    folder.rename(tmp_path / "away")
    for act in (lambda: journal.add(entry("lost")), journal.counts, lambda: journal.search("word")):
        with pytest.raises(MemoryFileError, match="No such file or directory"):
            act()
    (tmp_path / "away").rename(folder)
    journal.add(entry("after"))
    assert captions(journal.lines().entries) == ["after"]
    journal.close()


def test_folder_on_another_disk_is_an_error(tmp_path):
    journal = open_store(tmp_path)
    journal._device += 1
    with pytest.raises(MemoryFileError, match="another disk"):
        journal.add(entry("lost"))
    journal.close()


def test_closed_journal_opens_again_for_the_next_line(tmp_path):
    journal = open_store(tmp_path)
    journal._connection.close()
    journal._inode = (0, 0)
    journal.add(entry("after"))
    assert captions(journal.lines().entries) == ["after"]
    journal.close()


def test_file_locked_by_another_program_is_an_error_and_no_damage(journal, tmp_path, monkeypatch):
    journal._connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(MemoryFileError, match="locked"):
        journal.add(entry("lost"))
    other.execute("ROLLBACK")
    other.close()
    journal.add(entry("after"))
    assert captions(journal.lines().entries) == ["after"]
    assert journal.warning == ""


def test_journal_is_complete_after_kills_at_any_time(tmp_path):
    finished = subprocess.run(
        [sys.executable, HELPER, tmp_path, str(KILLS)], capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert f"{KILLS} kills" in finished.stdout


def test_threads_may_add_and_search_together(journal):
    failures = []

    def use(number):
        try:
            for at in range(20):
                journal.add(entry(f"thread{number} line", at + 1))
                assert len(journal.search(f"thread{number}", limit=100)) == at + 1
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert failures == []
    assert journal.counts().lines == 80


def test_hanging_write_delays_no_read(journal, monkeypatch):
    # given a write that hangs in its transaction
    row = journal.add(entry("before"))
    hangs, goes_on = threading.Event(), threading.Event()

    def hang(connection):
        hangs.set()
        goes_on.wait(60.0)

    monkeypatch.setattr(journal, "_prune", hang)
    writing = threading.Thread(target=journal.add, args=(entry("during"),))
    writing.start()
    assert hangs.wait(10.0)

    # then other threads read what was there before it
    def read():
        page = journal.lines()
        return (
            (*captions(page.entries),),
            (*captions(journal.search("before")),),
            journal.count(),
            journal.thumbnail(row),
        )

    with ThreadPoolExecutor(4) as threads:
        reads = [threads.submit(read) for _ in range(4)]
        try:
            assert {read.result(10.0) for read in reads} == {(("before",), ("before",), 1, entry("").thumbnail)}
        finally:
            goes_on.set()
            writing.join(10.0)
    assert captions(journal.lines().entries) == ["during", "before"]


def test_read_of_a_removed_file_during_a_hanging_write_is_an_error(journal, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_BUSY_SEC", 0.05)
    (tmp_path / FILE).unlink()
    with journal._lock, pytest.raises(MemoryFileError, match="while a write hangs: check the disk"):
        journal.lines()
    assert journal.lines().entries == ()
    assert "was removed" in journal.warning


def test_library_without_full_text_search_is_a_configuration_error(monkeypatch):
    check_fts()
    monkeypatch.setattr(store, "_FTS", "fts99")
    with pytest.raises(ConfigurationError, match=r"needs SQLite with FTS5.*no such module: fts99.*journal.enabled"):
        check_fts()
