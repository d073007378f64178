"""The thread that writes the journal: a failing disk delays nobody and loses as little as possible, never silently."""

import threading
import time

import pytest
from journal_entries import captions, entry, open_store
from waiting import wait_until

from delayed_vlm_ros.errors import MemoryFileError
from delayed_vlm_ros.journal import writer as module
from delayed_vlm_ros.journal.store import FILE
from delayed_vlm_ros.journal.writer import MAX_UNWRITTEN, JournalWriter

FULL = MemoryFileError("cannot write: database or disk is full: check the disk")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_RETRY_SEC", 0.02)
    monkeypatch.setattr(module, "_CHECK_SEC", 0.05)


class Journal:
    """A writer with its log, and a switch for faults of the disk."""

    def __init__(self, folder):
        self.folder = folder
        self.log = []
        self.open_error = self.add_error = None
        self.writer = JournalWriter(self._open, self.log.append)

    def _open(self):
        if self.open_error is not None:
            raise self.open_error
        store = open_store(self.folder)
        add = store.add

        def add_unless_it_fails(line):
            if self.add_error is not None:
                raise self.add_error
            return add(line)

        store.add = add_unless_it_fails
        return store

    def put(self, *texts):
        for text in texts:
            self.writer.put(lambda text=text: entry(text))

    def written(self):
        return captions(reversed(self.writer.store.lines(limit=1000).entries))

    def wait_for(self, condition):
        wait_until(lambda: condition(self.writer.report()), "the writer")


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path)
    yield made
    made.writer.close(5.0)


def test_lines_are_written_soon_and_reported(journal):
    journal.writer.start()
    journal.put("one", "two")
    journal.wait_for(lambda report: report.written == 2 and report.counts.lines == 2)
    report = journal.writer.report()
    assert (report.unwritten, report.lost, report.error, report.warning) == (0, 0, "", "")
    assert report.counts.bytes > 0
    assert journal.written() == ["one", "two"]
    assert journal.log == []


def test_close_writes_what_waits_and_later_lines_are_lost_and_counted(journal, tmp_path):
    journal.put(*(f"line {number}" for number in range(50)))  # before the thread starts
    journal.writer.start()
    journal.writer.close(10.0)
    journal.put("too late")
    assert journal.writer.report().lost == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert open_store(tmp_path).counts().lines == 50


def test_full_disk_is_logged_once_and_lines_are_written_when_there_is_space(journal):
    journal.writer.start()
    journal.put("before")
    journal.wait_for(lambda report: report.written == 1)
    journal.add_error = FULL
    journal.put("one", "two")
    journal.wait_for(lambda report: report.error == str(FULL))
    time.sleep(0.2)
    assert journal.writer.report().unwritten == 2
    assert journal.log == [f"the journal is not written: {FULL}"]
    assert journal.written() == ["before"]  # can still be read
    journal.add_error = None
    journal.wait_for(lambda report: report.written == 3 and not report.error)
    assert journal.written() == ["before", "one", "two"]


def test_oldest_lines_are_lost_and_counted_while_the_disk_fails_for_long(journal):
    journal.add_error = FULL
    journal.writer.start()
    journal.put(*(f"line {number}" for number in range(MAX_UNWRITTEN + 5)))
    report = journal.writer.report()
    assert (report.unwritten, report.lost) == (MAX_UNWRITTEN, 5)
    journal.add_error = None
    journal.wait_for(lambda report: report.unwritten == 0)
    assert journal.written()[0] == "line 5"


def test_lines_that_the_end_loses_are_logged(journal):
    journal.add_error = FULL
    journal.writer.start()
    journal.put("one", "two")
    journal.wait_for(lambda report: bool(report.error))
    journal.writer.close(5.0)
    assert journal.log[-1] == f"lines of the journal are lost (2): {FULL}"
    assert journal.writer.report().lost == 2


def test_journal_that_cannot_be_opened_is_tried_again(journal):
    journal.open_error = MemoryFileError("cannot open")
    journal.put("early")
    journal.writer.start()
    journal.wait_for(lambda report: report.error == "cannot open")
    with pytest.raises(MemoryFileError, match="the journal cannot be read: cannot open"):
        journal.writer.store  # noqa: B018
    with pytest.raises(MemoryFileError, match="cannot be read"):
        journal.writer.clear()
    journal.open_error = None
    journal.wait_for(lambda report: report.written == 1)
    assert journal.written() == ["early"]


def test_refused_journal_writes_nothing_and_says_why(journal, tmp_path):
    journal.writer.refuse("the folder is in use by another node")
    journal.put("line")
    journal.writer.close(1.0)
    report = journal.writer.report()
    assert (report.error, report.lost) == ("the folder is in use by another node", 1)
    assert journal.log == ["the folder is in use by another node"]
    assert list(tmp_path.iterdir()) == []


def test_unusable_file_is_logged_and_reported(journal, tmp_path):
    (tmp_path / FILE).write_text("no journal " * 1000)
    journal.writer.start()
    journal.wait_for(lambda report: not report.error)
    assert "set aside" in journal.writer.report().warning
    assert journal.log == [journal.writer.report().warning]


def test_file_removed_by_hand_is_noticed_without_a_new_line(journal, tmp_path):
    journal.writer.start()
    journal.put("line")
    journal.wait_for(lambda report: report.counts.lines == 1)
    for path in tmp_path.iterdir():
        path.unlink()
    journal.wait_for(lambda report: "removed" in report.warning and report.counts.lines == 0)


def test_folder_that_is_away_is_an_error_until_it_is_back(journal, tmp_path):
    journal.folder = tmp_path / "folder"
    journal.folder.mkdir()
    journal.writer.start()
    journal.wait_for(lambda report: not report.error)
    journal.folder.rename(tmp_path / "away")
    journal.wait_for(lambda report: "No such file or directory" in report.error)
    (tmp_path / "away").rename(journal.folder)
    journal.wait_for(lambda report: not report.error)


def test_clear_removes_lines_that_are_written_and_lines_that_wait(journal):
    journal.writer.start()
    journal.put("written")
    journal.wait_for(lambda report: report.written == 1)
    journal.add_error = FULL
    journal.put("waits", "waits too")
    journal.wait_for(lambda report: bool(report.error))
    journal.add_error = None
    before = journal.writer.report().unwritten
    assert journal.writer.clear() in (1 + before, 3)
    assert journal.writer.report().unwritten == 0
    assert journal.written() == []


def test_line_that_cannot_be_made_is_lost_and_the_next_one_is_written(journal, caplog):
    journal.writer.start()
    journal.writer.put(lambda: 1 / 0)
    journal.put("next")
    journal.wait_for(lambda report: report.written == 1)
    assert journal.writer.report().lost == 1
    assert "ZeroDivisionError" in caplog.text
    assert journal.written() == ["next"]


def test_defect_ends_the_thread_with_a_report(journal):
    journal.open_error = RuntimeError("defect")
    journal.writer.start()
    journal.wait_for(lambda report: report.error == "the journal is no longer written: RuntimeError: defect")
    journal.put("line")
    assert journal.writer.report().lost == 1


def test_hanging_disk_delays_neither_new_lines_nor_the_end(journal):
    hangs = threading.Event()
    journal.writer.start()
    journal.put("first")
    journal.wait_for(lambda report: report.written == 1)
    journal.writer.store.add = lambda _: hangs.wait(30.0)
    began = time.monotonic()
    journal.put(*["line"] * 300)
    assert journal.writer.report().lost >= 300 - MAX_UNWRITTEN - 1
    journal.writer.close(0.1)
    assert time.monotonic() - began < 1.0
    hangs.set()


def test_line_at_work_is_not_lost_when_too_many_wait(journal):
    # given a disk that hangs while it writes a line
    hangs, goes_on = threading.Event(), threading.Event()
    journal.writer.start()
    journal.wait_for(lambda report: not report.error)
    add = journal.writer.store.add

    def add_slowly(line):
        hangs.set()
        goes_on.wait(30.0)
        return add(line)

    journal.writer.store.add = add_slowly
    journal.put("at work")
    assert hangs.wait(10.0)

    # when more lines come than may wait
    journal.put(*(f"line {number}" for number in range(MAX_UNWRITTEN + 9)))
    goes_on.set()

    # then each line is either written or lost
    journal.wait_for(lambda report: report.unwritten == 0)
    report = journal.writer.report()
    assert (report.written, report.lost) == (MAX_UNWRITTEN, 10)
    assert journal.written() == ["at work", *(f"line {number}" for number in range(10, MAX_UNWRITTEN + 9))]
