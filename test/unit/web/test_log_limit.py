"""Bound of the messages in the log that visitors cause."""

import logging

from delayed_vlm_ros.web.log_limit import LogLimit


def test_repeated_messages_are_limited_and_those_left_out_are_counted(caplog):
    # given
    now = 0.0
    logger = logging.getLogger("test of the log limit")
    limit = LogLimit(lambda: now)
    logger.addFilter(limit)

    # when
    for number in range(1000):
        logger.warning("request %d is malformed", number)
    now = 61.0
    logger.warning("request %s is malformed", "last")
    logger.removeFilter(limit)

    # then
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 11
    assert messages[0] == "request 0 is malformed"
    assert messages[-1].endswith("(990 earlier messages left out)")


def test_text_of_a_visitor_stays_on_one_short_line(caplog):
    logger = logging.getLogger("test of the text of visitors")
    limit = LogLimit()
    logger.addFilter(limit)
    logger.error("%s", "\x1b[31mfailed\nERROR: forged line" + "a" * 1_000_000)
    logger.error("100 % failed\n")
    logger.removeFilter(limit)
    long, short = (record.getMessage() for record in caplog.records)
    assert long.startswith("\\x1b[31mfailed\\nERROR: forged line")
    assert len(long) == 1000
    assert short == "100 % failed"
