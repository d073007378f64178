"""A bounded queue that its clients share evenly."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """A first-in, first-out queue per client, served round robin. Not thread-safe.

    When the queue is full, a client with fewer waiting items may enter: it evicts the newest item of the client with
    the most. No client can lock the others out by sending more.
    """

    def __init__(self) -> None:
        self._by_client: dict[str, deque[Item]] = {}  # in the order of service; no deque is empty
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        return (item for items in self._by_client.values() for item in items)

    def offer(self, client_id: str, item: Item, size: int) -> Item | None:
        """Append an item to its client's queue.

        Args:
            client_id: The client that sent the item.
            item: The item.
            size: Capacity of the whole queue in items.

        Returns:
            None, or the item that found no room: ``item``, or one of a client with more waiting items.
        """
        evicted = None
        if self._length >= size:
            if not self._by_client:
                return item
            largest = max(self._by_client, key=lambda client: len(self._by_client[client]))
            lead = len(self._by_client[largest]) - len(self._by_client.get(client_id, ()))
            if lead < 2:  # noqa: PLR2004  an exchange would only swap the two clients
                return item
            evicted = self._by_client[largest][-1]
            self.remove(evicted)
        self._by_client.setdefault(client_id, deque()).append(item)
        self._length += 1
        return evicted

    def take(self) -> Item:
        """Remove and return the next item of a queue that is not empty. Its client goes to the end of the round."""
        client_id = next(iter(self._by_client))
        items = self._by_client.pop(client_id)
        item = items.popleft()
        self._length -= 1
        if items:
            self._by_client[client_id] = items
        return item

    def remove(self, item: Item) -> bool:
        """Remove an item and return whether it was queued."""
        for client_id, items in self._by_client.items():
            if item in items:
                items.remove(item)
                self._length -= 1
                if not items:
                    del self._by_client[client_id]
                return True
        return False

    def clear(self) -> list[Item]:
        """Remove and return all items."""
        items = list(self)
        self._by_client.clear()
        self._length = 0
        return items
