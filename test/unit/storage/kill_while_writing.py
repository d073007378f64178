"""Writes a memory over and over in a process that is killed at a random moment, many times; looks at what is left.

    kill_while_writing.py FOLDER KILLS

Prints how many kills left a half-written file beside the whole one, and how many files were written in all. Ends with 1
when a file is not exactly one that was written, or older than the last one whose writing had returned.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from star_memories import generation_of, open_folder, star_memory, take_any

IMAGE = {"pairs": 6, "height": 224, "width": 224}


def write_for_ever(path: str, generation: int, told: int) -> None:
    folder = open_folder(path)
    while True:
        generation += 1
        folder.save(star_memory(generation, **IMAGE))
        os.write(told, generation.to_bytes(4, "big"))


def kill_one(path: str, generation: int) -> int:
    """Gives the generation of the last file whose writing had returned."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(read_end)
        write_for_ever(path, generation, write_end)
    os.close(write_end)
    first = os.read(read_end, 4)
    time.sleep(random.random() * 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = first
    while more := os.read(read_end, 4096):
        told += more
    os.close(read_end)
    return int.from_bytes(told[-4:], "big")


def main(path: str, kills: int) -> None:
    generation = halves = 0
    for _ in range(kills):
        promised = kill_one(path, generation)
        halves += (Path(path) / "front.star.new").exists()
        folder = open_folder(path)
        loaded = folder.load("front", take_any)
        folder.close()
        assert not loaded.notice, loaded.notice
        generation = generation_of(loaded.memory)
        assert promised <= generation <= promised + 1, (promised, generation)
    assert {file.name for file in Path(path).iterdir()} <= {"front.star", "front.star.new"}
    print(f"{kills} kills, {halves} of them while writing, {generation} files written")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
