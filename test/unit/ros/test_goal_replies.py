"""Replies to goals wait until earlier ones were read."""

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.ros.services.goal_replies import ReplyWindow


class Replies:
    """Goals that wait for their turn, as handlers of an executor do."""

    def __init__(self, *, max_unread=2, read_after_sec=3600.0):
        self.window = ReplyWindow(max_unread, read_after_sec, lambda: lambda: None)
        self.sent = []
        self._waiting = {}

    def request(self, goal_id):
        self._waiting[goal_id] = self.window.wait(goal_id)
        self.step()

    def step(self):
        """Resume all handlers."""
        for goal_id, handler in list(self._waiting.items()):
            try:
                handler.send(None)
            except StopIteration:
                self.sent.append(goal_id)
                del self._waiting[goal_id]


def test_reply_waits_until_an_earlier_one_was_read_and_order_is_kept():
    replies = Replies()
    for goal_id in (b"1", b"2", b"3", b"4"):
        replies.request(goal_id)
    assert replies.sent == [b"1", b"2"]
    # when / then
    replies.window.confirm(b"2")
    replies.step()
    assert replies.sent == [b"1", b"2", b"3"]
    replies.window.confirm(b"unknown")
    replies.window.confirm(b"2")
    replies.step()
    assert replies.sent == [b"1", b"2", b"3"]
    replies.window.confirm(b"1")
    replies.step()
    assert replies.sent == [b"1", b"2", b"3", b"4"]


def test_client_that_fetches_no_result_is_not_waited_for():
    replies = Replies(read_after_sec=0.0)
    for goal_id in (b"1", b"2", b"3"):
        replies.request(goal_id)
    assert replies.sent == [b"1", b"2"]
    replies.window.expire()
    replies.step()
    assert replies.sent == [b"1", b"2", b"3"]


def test_young_replies_do_not_expire():
    replies = Replies()
    for goal_id in (b"1", b"2", b"3"):
        replies.request(goal_id)
    replies.window.expire()
    replies.step()
    assert replies.sent == [b"1", b"2"]


def test_all_replies_pass_when_the_node_ends():
    replies = Replies()
    for number in range(50):
        replies.request(b"%d" % number)
    replies.window.open()
    replies.step()
    replies.request(b"late")
    assert len(replies.sent) == 51
