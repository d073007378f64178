"""Replies to goals wait until earlier ones were read."""

import time
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.task import Future

from delayed_vlm_ros.ros.services.goal_replies import PacedActionServer, ReplyWindow


class Replies:
    """Replies of a service, and the window that they pass."""

    def __init__(self, *, max_unread=2, read_after_sec=3600.0):
        self.window = ReplyWindow(max_unread, read_after_sec)
        self.sent = []

    def put(self, *goal_ids):
        for goal_id in goal_ids:
            self.window.put(goal_id, lambda goal_id=goal_id: self.sent.append(goal_id))


def test_reply_waits_until_an_earlier_one_was_read_and_order_is_kept():
    replies = Replies()
    replies.put(b"1", b"2", b"3", b"4")
    assert replies.sent == [b"1", b"2"]
    # when / then
    assert replies.window.confirm(b"2") is not None
    assert replies.sent == [b"1", b"2", b"3"]
    assert replies.window.confirm(b"unknown") is None
    assert replies.window.confirm(b"2") is None
    assert replies.sent == [b"1", b"2", b"3"]
    replies.window.confirm(b"1")
    assert replies.sent == [b"1", b"2", b"3", b"4"]


def test_oldest_reply_counts_as_read_only_if_it_was_sent_before_the_one_that_was_read():
    before = time.monotonic()
    replies = Replies()
    replies.put(b"1", b"2", b"3", b"4")
    replies.window.confirm_oldest(before)
    assert replies.sent == [b"1", b"2"]
    # when
    replies.window.confirm_oldest(time.monotonic())
    # then one more is sent, for the first
    assert replies.sent == [b"1", b"2", b"3"]
    assert replies.window.confirm(b"1") is None


def test_confirmation_without_replies_changes_nothing():
    replies = Replies()
    replies.window.confirm_oldest(time.monotonic())
    replies.put(b"1", b"2", b"3")
    assert replies.sent == [b"1", b"2"]


def test_client_that_fetches_no_result_is_not_waited_for():
    replies = Replies(read_after_sec=0.0)
    replies.put(b"1", b"2", b"3")
    assert replies.sent == [b"1", b"2"]
    replies.window.expire()
    assert replies.sent == [b"1", b"2", b"3"]


def test_young_replies_do_not_expire():
    replies = Replies()
    replies.put(b"1", b"2", b"3")
    replies.window.expire()
    assert replies.sent == [b"1", b"2"]


def test_all_replies_pass_when_the_node_ends():
    replies = Replies()
    replies.put(*(b"%d" % number for number in range(50)))
    replies.window.open()
    replies.put(b"late")
    assert len(replies.sent) == 51


class ResultServer(PacedActionServer):
    """The part of the server that sends results, without a node."""

    def __init__(self, goals):
        self._acceptances, self._results = ReplyWindow(100, 3600.0), ReplyWindow(8, 3600.0)
        self._result_futures = {goal_id(number): Future() for number in range(goals)}
        self.sent = []

    def _send_result_response(self, request_header, future):
        self.sent.append((request_header, future.result()))

    def request(self, number):
        """Request the result of a goal, as a client does that has read its acceptance."""
        request = SimpleNamespace(goal_id=SimpleNamespace(uuid=goal_id(number)))
        with pytest.raises(StopIteration):
            self._execute_get_result_request((f"header {number}", request)).send(None)

    def end(self, number):
        self._result_futures[goal_id(number)].set_result(number)


def goal_id(number):
    return bytes([number] * 16)


def test_results_wait_for_later_goals_and_each_reaches_its_own_request():
    # given twelve goals, half of which have ended before their results are requested
    server = ResultServer(13)
    for number in range(6):
        server.end(number)
    for number in range(12):
        server.request(number)
    for number in range(6, 12):
        server.end(number)
    assert server.sent == [(f"header {number}", number) for number in range(8)]
    # when a client reads the acceptance of a later goal
    server._acceptances.put(goal_id(12), lambda: None)
    server._confirm(goal_id(12))
    # then one result more is sent
    assert len(server.sent) == 9
    server.stop_pacing()
    assert server.sent == [(f"header {number}", number) for number in range(12)]
