"""Bound of the messages in the log that visitors cause."""

import logging

from delayed_vlm_ros.web import log_limit
from delayed_vlm_ros.web.log_limit import LogLimit, limit_server_log, report_left_out


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


def test_each_logger_has_one_filter_for_all_servers():
    for _ in range(3):
        limit_server_log()
    filters = [kept for kept in logging.getLogger("uvicorn.error").filters if isinstance(kept, LogLimit)]
    assert len(filters) == 1


def test_messages_left_out_are_reported_without_a_further_message(caplog, monkeypatch):
    # given
    now = 0.0
    logger = logging.getLogger("test of the report")
    limit = LogLimit(lambda: now)
    monkeypatch.setattr(log_limit, "_LIMITS", {logger.name: limit})
    limit_server_log()
    for number in range(30):
        logger.warning("request %d", number)
    # when
    report_left_out()
    assert len(caplog.records) == 10
    now = 60.0
    report_left_out()
    report_left_out()
    # then
    assert [record.getMessage() for record in caplog.records[10:]] == ["20 earlier messages left out"]
    # and at the end of the server before the minute ends
    for number in range(12):
        logger.warning("request %d", number)
    report_left_out(is_last=True)
    logger.removeFilter(limit)
    assert caplog.records[-1].getMessage() == "3 earlier messages left out"
