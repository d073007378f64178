"""The queue that clients share evenly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from delayed_vlm_ros.inference.queue import FairQueue


def test_queue_of_one_client_is_first_in_first_out():
    queue = FairQueue()
    assert [queue.offer("", number, 3) for number in range(5)] == [None, None, None, 3, 4]
    assert [queue.take() for _ in range(3)] == [0, 1, 2]
    assert len(queue) == 0


def test_take_serves_clients_round_robin():
    queue = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.offer(item[0], item, 9)
    assert [queue.take() for _ in range(4)] == ["a1", "b1", "c1", "a2"]
    queue.offer("c", "c2", 9)
    assert [queue.take() for _ in range(3)] == ["b2", "a3", "c2"]


def test_offer_to_full_queue_evicts_newest_item_of_largest_client():
    queue = FairQueue()
    for number in range(4):
        queue.offer("a", f"a{number}", 4)
    # when / then
    assert queue.offer("b", "b0", 4) == "a3"
    assert queue.offer("b", "b1", 4) == "a2"
    assert queue.offer("b", "b2", 4) == "b2"
    assert queue.offer("c", "c0", 4) == "a1"
    assert queue.offer("c", "c1", 4) == "c1", "no client has two items more than c"
    assert [queue.take() for _ in range(4)] == ["a0", "b0", "c0", "b1"]


def test_remove_and_clear_free_positions():
    queue = FairQueue()
    for item in ("a1", "b1"):
        queue.offer(item[0], item, 2)
    assert sorted(queue) == ["a1", "b1"]
    assert queue.remove("b1")
    assert not queue.remove("b1")
    assert queue.offer("c", "c1", 2) is None
    assert sorted(queue.clear()) == ["a1", "c1"]
    assert len(queue) == 0
    assert queue.offer("a", "a2", 2) is None


@given(some.lists(some.sampled_from("aaabc")), some.integers(1, 5))
def test_no_client_is_kept_out_and_no_item_is_lost(clients, size):
    queue, waiting, evicted = FairQueue(), [], []
    for number, client_id in enumerate(clients):
        item = (client_id, number)
        waiting.append(item)
        gone = queue.offer(client_id, item, size)
        if gone is not None:
            waiting.remove(gone)
            evicted.append(gone)
        assert len(queue) == len(waiting) <= size
    # then a client with an evicted item has as many waiting items as any other, less one
    lengths = {client_id: sum(owner == client_id for owner, _ in waiting) for client_id in clients}
    for client_id, _ in evicted:
        assert lengths[client_id] >= max(lengths.values()) - 1
    # and each client is served in the order of its items, and once in the first round if it has any
    served = [queue.take() for _ in range(len(queue))]
    assert sorted(served) == sorted(waiting)
    for client_id in lengths:
        own = [number for owner, number in served if owner == client_id]
        assert own == sorted(own)
    first_round = [owner for owner, _ in served[: sum(length > 0 for length in lengths.values())]]
    assert len(set(first_round)) == len(first_round)
