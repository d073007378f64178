"""The folder of key-frame files: complete files only, and nothing outside of it is touched."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from star_memories import accept_any, content_of, generation_of, open_folder, star_memory

from delayed_vlm_ros.errors import MemoryFileError
from delayed_vlm_ros.storage import folder as folder_module

KILLS = int(os.environ.get("PERSISTENCE_KILLS", "30"))
HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "kept"
    path.mkdir()
    opened = open_folder(path)
    yield opened
    opened.close()


def names(folder):
    return sorted(file.name for file in folder._path.iterdir())


def reopened(folder):
    """Close and open the folder, as a restart does."""
    path = folder._path
    folder.close()
    folder.__init__(str(path), folder._describe_source, folder._revive_source)
    return folder


def test_saved_memory_is_loaded_and_the_folder_has_no_other_file(folder):
    size = folder.save(star_memory(3))
    loaded = reopened(folder).load("front", accept_any)
    assert (loaded.warning, content_of(loaded.memory)) == ("", content_of(star_memory(3)))
    assert names(folder) == ["front.star"]
    file = folder._path / "front.star"
    assert file.stat().st_size == size
    assert file.stat().st_mode & 0o777 == 0o600


def test_unchanged_memory_is_not_written(folder):
    assert folder.save(star_memory(3)) > 0
    assert folder.save(star_memory(3)) == 0
    assert folder.save(star_memory(4)) > 0
    reopened(folder).load("front", accept_any)
    assert folder.save(star_memory(4)) == 0


def test_missing_file_is_no_memory_and_no_warning(folder):
    assert folder.load("front", accept_any) == folder_module.LoadedMemory(None, "")


def spoil(kind, file, outside):
    content = file.read_bytes()
    if kind == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "flipped":
        file.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    elif kind == "foreign":
        file.write_bytes(b"\x89PNG\r\n\x1a\n and so on")
    elif kind == "link":
        outside.write_bytes(content)
        file.unlink()
        file.symlink_to(outside)
    elif kind == "folder":
        file.unlink()
        file.mkdir()
    elif kind == "pipe":
        file.unlink()
        os.mkfifo(file)


@pytest.mark.parametrize("kind", ["truncated", "empty", "flipped", "foreign", "link", "folder", "pipe"])
def test_unusable_file_is_set_aside_and_the_next_one_is_written(folder, tmp_path, kind):
    # given
    folder.save(star_memory(1))
    outside = tmp_path / "outside"
    spoil(kind, folder._path / "front.star", outside)
    others = outside.read_bytes() if outside.exists() else b""

    # when
    loaded = reopened(folder).load("front", accept_any)

    # then
    assert loaded.memory is None
    assert "front.star.aside-1" in loaded.warning
    assert names(folder) == ["front.star.aside-1"]
    folder.save(star_memory(2))
    assert generation_of(reopened(folder).load("front", accept_any).memory) == 2
    # and nothing outside has changed
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"kept", *(["outside"] if others else [])})
    assert not others or outside.read_bytes() == others


@pytest.mark.parametrize(
    "error",
    [MemoryError(), *(OSError(number, os.strerror(number)) for number in (errno.EIO, errno.EMFILE, errno.EACCES))],
)
def test_file_that_the_system_cannot_read_is_left_in_place(folder, monkeypatch, error):
    folder.save(star_memory(1))

    def fail(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(folder_module, "read_memory", fail)
        with pytest.raises(MemoryFileError, match=r"front\.star"):
            folder.load("front", accept_any)
    # then
    assert names(folder) == ["front.star"]
    assert generation_of(folder.load("front", accept_any).memory) == 1


def test_refused_file_is_set_aside_with_the_reason(folder):
    folder.save(star_memory(1))
    loaded = reopened(folder).load("front", lambda memory: f"belongs to {memory.camera}")
    assert "belongs to front" in loaded.warning
    assert "front.star.aside-1" in loaded.warning
    assert loaded.memory is None


def test_file_damaged_at_every_start_does_not_fill_the_disk(folder):
    for start in range(8):
        (folder._path / "front.star").write_bytes(b"bad %d" % start)
        folder.load("front", accept_any)
    assert names(folder) == [f"front.star.aside-{number}" for number in range(1, 6)]
    assert (folder._path / "front.star.aside-5").read_bytes() == b"bad 7"


def test_link_in_the_path_of_the_new_file_is_not_followed(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (folder._path / "front.star.new").symlink_to(outside)
    (folder._path / "front.star").symlink_to(outside)
    folder.save(star_memory(1))
    assert outside.read_bytes() == b"precious"
    assert not (folder._path / "front.star").is_symlink()


def test_folder_in_use_is_rejected(folder):
    with pytest.raises(MemoryFileError, match="in use"):
        open_folder(folder._path)
    folder.close()
    other = open_folder(folder._path)
    folder._folder = other._folder  # for the fixture


@pytest.mark.parametrize("path", ["/nonexistent/folder", "/dev/null", "/tmp/with\0null"])
def test_path_that_is_not_a_folder_is_rejected(path):
    with pytest.raises(MemoryFileError, match="folder"):
        open_folder(path)


def test_folder_of_another_owner_is_rejected(tmp_path, monkeypatch):
    # given a folder that everybody may write, such as /tmp
    tmp_path.chmod(0o777)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    # when / then
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(MemoryFileError, match="another user"):
        open_folder(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_root_may_use_the_folder_of_another_user(tmp_path, monkeypatch):
    real = os.fstat
    owned = os.stat_result((*real(os.open(tmp_path, os.O_RDONLY))[:4], 1000, *tmp_path.stat()[5:]))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fstat", lambda _: owned)
    open_folder(tmp_path).close()


@pytest.mark.parametrize("name", ["stat", "fstat", "fstatvfs", "listdir", "_mount_of", "open"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_failing_system_call_of_a_check_is_an_error_of_the_folder(folder, monkeypatch, name, number):
    # given a folder that was made again, so that each call is made
    folder.save(star_memory(1))
    path = folder._path
    path.rename(path.with_name("before"))
    path.mkdir()

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    # when
    with monkeypatch.context() as patched:
        patched.setattr(folder_module if name == "_mount_of" else os, name, fail)
        with pytest.raises(MemoryFileError):
            folder.check()
    # then the next check opens the folder
    assert not folder.check()
    folder.save(star_memory(1))
    assert names(folder) == ["front.star"]


def test_file_that_cannot_be_looked_at_is_an_error_of_the_folder(folder, monkeypatch):
    folder.save(star_memory(1))
    real = os.stat

    def fail(path, *arguments, **options):
        if path == "front.star":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", fail)
        with pytest.raises(MemoryFileError, match="Input/output error"):
            folder.check()
    assert folder.check()


@pytest.fixture
def linked(tmp_path):
    """Return a folder that is configured by a link, as systemd makes it for a dynamic user."""
    (tmp_path / "private").mkdir()
    (tmp_path / "kept").symlink_to("private")
    opened = open_folder(tmp_path / "kept")
    opened.save(star_memory(1))
    yield opened
    opened.close()


def test_folder_behind_a_link_is_used_again_after_it_was_made_again(linked, tmp_path):
    (tmp_path / "private").rename(tmp_path / "before")
    with pytest.raises(MemoryFileError, match="removed or renamed"):
        linked.check()
    # when
    (tmp_path / "private").mkdir()
    # then
    assert not linked.check()
    linked.save(star_memory(1))
    assert names(linked) == ["front.star"]


def test_link_that_leads_elsewhere_is_reported_and_its_target_stays_empty(linked, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "kept").unlink()
    (tmp_path / "kept").symlink_to("other")
    for call in (linked.check, lambda: linked.save(star_memory(2))):
        with pytest.raises(MemoryFileError, match="leads elsewhere"):
            call()
    assert not list((tmp_path / "other").iterdir())


def test_full_disk_is_reported_before_writing(folder, monkeypatch):
    folder.save(star_memory(1))
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 1, 1, 1, 0, 255))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstatvfs", lambda _: full)
        with pytest.raises(MemoryFileError, match=r"front.star .*No space left"):
            folder.save(star_memory(2))
    assert generation_of(reopened(folder).load("front", accept_any).memory) == 1
    # and when the disk has space again
    folder.save(star_memory(2))
    assert generation_of(reopened(folder).load("front", accept_any).memory) == 2


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_step_leaves_the_previous_file(folder, monkeypatch, call):
    folder.save(star_memory(1))

    def fail(*_, **__):
        raise OSError(errno.EIO, "planted")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(MemoryFileError, match="planted"):
            folder.save(star_memory(2))
    assert names(folder) == ["front.star"]
    assert generation_of(reopened(folder).load("front", accept_any).memory) == 1


def test_new_file_is_synced_before_it_replaces_the_previous_one(folder, monkeypatch):
    # given a record of the system calls
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _real=real, _name=name, **k: (calls.append(_name), _real(*a, **k)))
    folder.save(star_memory(1))
    assert calls == ["fsync", "replace", "fsync"]


def test_file_size_limit_leaves_the_previous_file(tmp_path):
    # given a file size limit of the system below the size of the second file
    script = (
        "from star_memories import *\n"
        f"folder = open_folder({str(tmp_path)!r})\n"
        "folder.save(star_memory(1))\n"
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: folder.save(star_memory(2, height=100))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=HERE, capture_output=True, text=True, check=True)
    assert "MemoryFileError" in done.stdout
    assert "front.star" in done.stdout
    assert "File too large" in done.stdout
    loaded = open_folder(tmp_path).load("front", accept_any)
    assert generation_of(loaded.memory) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["front.star"]


def test_file_is_complete_after_kill_at_any_time(tmp_path):
    done = subprocess.run(
        [sys.executable, "kill_while_writing.py", str(tmp_path), str(KILLS)],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert f"{KILLS} kills, " in done.stdout
    assert f"{KILLS} kills, 0 of them" not in done.stdout, "no kill hit a write, so nothing was tested"


def test_file_that_the_disk_damages_does_not_replace_the_previous_one(folder, monkeypatch):
    # given a disk that flips a bit of each new file
    folder.save(star_memory(1))
    real = os.fsync

    def damage(descriptor):
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.pwrite(descriptor, b"\xff", os.fstat(descriptor).st_size // 2)
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", damage)
        with pytest.raises(MemoryFileError, match=r"front\.star .*wrong checksum"):
            folder.save(star_memory(2))
    # then
    assert names(folder) == ["front.star"]
    assert generation_of(reopened(folder).load("front", accept_any).memory) == 1


def test_file_that_was_flushed_in_time_is_kept_although_reading_back_is_late(folder, monkeypatch):
    # given a deadline that passes while the disk flushes the new file
    folder.save(star_memory(1))
    flushed = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(real(descriptor)))
    # when
    assert folder.save(star_memory(2), interrupted=lambda: bool(flushed))
    # then
    assert generation_of(reopened(folder).load("front", accept_any).memory) == 2


@pytest.mark.parametrize("source", [float("nan"), ["read as nothing"]])
def test_memory_that_would_be_read_differently_is_refused_before_writing(folder, source):
    # given a frame whose source cannot be written, or is read as another one
    folder.save(star_memory(1))
    memory = star_memory(2)
    object.__setattr__(memory.pairs[0].pair.first, "source", source)
    folder._revive_source = lambda value: None if isinstance(value, list) else value
    # when
    with pytest.raises(MemoryFileError, match=r"front\.star .*next start"):
        folder.save(memory, interrupted=lambda: pytest.fail("writing has begun"))
    # then
    assert names(folder) == ["front.star"]
    assert generation_of(reopened(folder).load("front", accept_any).memory) == 1
