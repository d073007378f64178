"""Kill a process at random times while it adds lines, and check the journal after each kill.

    kill_while_adding.py FOLDER KILLS

Exits with 1 if a line is missing whose writing had returned, or if a line is not whole.
"""

import os
import random
import signal
import sys
import time

from journal_entries import entry, open_store


def add_forever(path: str, report: int) -> None:
    store = open_store(path, max_rows=10**6)
    while True:
        number = store.counts().lines + 1
        store.add(entry(f"word{number} in line {number}", number, thumbnail=number.to_bytes(4, "big") * 1000))
        os.write(report, number.to_bytes(4, "big"))


def kill_one(path: str) -> int:
    """Return the number of the last line whose writing had returned."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(read_end)
        add_forever(path, write_end)
    os.close(write_end)
    reported = os.read(read_end, 4)
    time.sleep(random.random() * 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read_end, 4096):
        reported += more
    os.close(read_end)
    return int.from_bytes(reported[-4:], "big")


def main(path: str, kills: int) -> None:
    for _ in range(kills):
        completed = kill_one(path)
        store = open_store(path, max_rows=10**6)
        assert not store.warning, store.warning
        lines = store.lines(limit=10**6, thumbnails=True).entries
        assert completed <= len(lines) <= completed + 1, (completed, len(lines))
        numbers = [line.pair_id for line in lines]
        assert numbers == list(range(len(lines), 0, -1))
        assert all(line.thumbnail == line.pair_id.to_bytes(4, "big") * 1000 for line in lines)
        for number in {1, numbers[0], random.choice(numbers)}:
            assert [one.entry.pair_id for one in store.search(f"word{number}")] == [number]
        store.close()
    print(f"{kills} kills, {len(lines)} lines")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
