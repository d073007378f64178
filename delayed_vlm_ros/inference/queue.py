"""A bounded queue that those who fill it share evenly."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """What waits, in a line for each client_id. Not safe to use from several threads.

    The lines are served in turn, one item each. Where the queue is full, somebody with a shorter line gets in at the
    cost of the newest item of the longest one: so nobody can keep the others out, however much they ask.
    """

    def __init__(self) -> None:
        self._lines: dict[str, deque[Item]] = {}  # in the order in which they are served; none is empty
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def offer(self, client_id: str, item: Item, size: int) -> Item | None:
        """Add an item to its client_id's line.

        Args:
            client_id: Whose it is.
            item: It.
            size: How many may wait.

        Returns:
            What has no room: None, the item itself, or one of somebody who had more of them waiting.
        """
        evicted = None
        if self._length >= size:
            if not self._lines:
                return item
            longest = max(self._lines, key=lambda name: len(self._lines[name]))
            if len(self._lines[longest]) - len(self._lines.get(client_id, ())) < 2:  # noqa: PLR2004  no gain for anybody
                return item
            evicted = self._lines[longest][-1]
            self.remove(evicted)
        self._lines.setdefault(client_id, deque()).append(item)
        self._length += 1
        return evicted

    def take(self) -> Item:
        """Remove the next item; there must be one. Its client_id's line is served again after all others."""
        client_id = next(iter(self._lines))
        line = self._lines.pop(client_id)
        item = line.popleft()
        self._length -= 1
        if line:
            self._lines[client_id] = line
        return item

    def remove(self, item: Item) -> bool:
        """Remove an item, wherever it stands; gives whether it was there."""
        for client_id, line in self._lines.items():
            if item in line:
                line.remove(item)
                self._length -= 1
                if not line:
                    del self._lines[client_id]
                return True
        return False

    def clear(self) -> list[Item]:
        """Remove everything; gives what was there."""
        items = [item for line in self._lines.values() for item in line]
        self._lines.clear()
        self._length = 0
        return items
