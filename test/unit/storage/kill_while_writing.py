"""Kill a process at random times while it writes a memory, many times, and check the file after each kill.

    kill_while_writing.py FOLDER KILLS

Prints how many kills left an incomplete new file next to the complete one, and how many files were written. Exits
with 1 if a file is not exactly one of those written, or is older than the last one whose writing had returned.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from star_memories import accept_any, generation_of, open_folder, star_memory

IMAGE = {"pairs": 6, "height": 224, "width": 224}


def write_forever(path: str, generation: int, report: int) -> None:
    folder = open_folder(path)
    while True:
        generation += 1
        folder.save(star_memory(generation, **IMAGE))
        os.write(report, generation.to_bytes(4, "big"))


def kill_one(path: str, generation: int) -> int:
    """Return the generation of the last file whose writing had returned."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(read_end)
        write_forever(path, generation, write_end)
    os.close(write_end)
    first = os.read(read_end, 4)
    time.sleep(random.random() * 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reported = first
    while more := os.read(read_end, 4096):
        reported += more
    os.close(read_end)
    return int.from_bytes(reported[-4:], "big")


def main(path: str, kills: int) -> None:
    generation = incomplete = 0
    for _ in range(kills):
        completed = kill_one(path, generation)
        incomplete += (Path(path) / "front.star.new").exists()
        folder = open_folder(path)
        loaded = folder.load("front", accept_any)
        folder.close()
        assert not loaded.warning, loaded.warning
        generation = generation_of(loaded.memory)
        assert completed <= generation <= completed + 1, (completed, generation)
    assert {file.name for file in Path(path).iterdir()} <= {"front.star", "front.star.new"}
    print(f"{kills} kills, {incomplete} of them while writing, {generation} files written")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
