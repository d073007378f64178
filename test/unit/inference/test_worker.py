"""The thread that owns the model: queue, deadlines, failures and shutdown."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    BusyError,
    DeviceMemoryError,
    ModelNotFoundError,
    ModelNotReadyError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.inference.worker import IdleTask, ModelState, ModelWorker, WorkerStatus

PATIENCE = 10.0  # seconds; spent only when a test fails


class Gate:
    """A job, or a load, that signals its start and returns once it is opened."""

    def __init__(self, result="model"):
        self.entered, self.opened = threading.Event(), threading.Event()
        self.result = result

    def __call__(self, *_):
        self.entered.set()
        assert self.opened.wait(PATIENCE)
        return self.result


def until_cancelled(_, control):
    while True:
        control.check()
        time.sleep(0.002)


def return_model(model, _):
    return model


def eventually(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def make_worker():
    """Return a function that makes started workers; closes them after the test."""
    workers = []

    def make(load=lambda: "model", queue_size=2, *, start=True, **arguments):
        worker = ModelWorker(load, queue_size, **arguments)
        workers.append(worker)
        if start:
            worker.start()
        return worker

    yield make
    for worker in workers:
        assert worker.close(PATIENCE)


@pytest.fixture
def clients():
    """Threads that ask; a test ends only when all of them have their answer."""
    with ThreadPoolExecutor(32) as pool:
        yield pool


@pytest.fixture
def busy_worker(make_worker):
    """A worker whose thread is inside a job, and the gate that lets the job return."""
    worker, gate = make_worker(queue_size=4), Gate()
    worker.submit(gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)
    yield worker, gate
    gate.opened.set()


# --- jobs -----------------------------------------------------------------------------------------------------------


def test_job_gets_model_and_control_in_the_worker_thread(make_worker):
    # given
    worker = make_worker(threading.current_thread)

    # when
    model, control, thread = worker.run(lambda model, control: (model, control, threading.current_thread()), PATIENCE)

    # then
    assert model is thread is not threading.current_thread()
    assert 0 < control.remaining() <= PATIENCE
    eventually(lambda: not worker.status.running)
    assert (worker.status.state, worker.status.waiting) == (ModelState.READY, 0)


def test_jobs_run_one_at_a_time_in_order(make_worker, clients):
    # given
    worker, gate, order = make_worker(queue_size=5), Gate(), []
    first = clients.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)

    # when
    for number in range(5):
        clients.submit(worker.run, lambda *_, number=number: order.append(number), PATIENCE)
        eventually(lambda number=number: worker.status.waiting == number + 1)
    assert worker.status.running
    gate.opened.set()

    # then
    first.result(PATIENCE)
    eventually(lambda: order == [0, 1, 2, 3, 4])


def test_job_waits_for_a_loading_model(make_worker, clients):
    # given
    load = Gate("late model")
    worker = make_worker(load)

    # when
    answer = clients.submit(worker.run, return_model, PATIENCE)
    eventually(lambda: worker.status.waiting == 1)
    assert worker.status.state is ModelState.LOADING
    load.opened.set()

    # then
    assert answer.result(PATIENCE) == "late model"


def test_constructor_starts_no_thread_and_loads_nothing(make_worker):
    # given
    load, threads = Gate(), threading.active_count()

    # when
    worker = make_worker(load, start=False)

    # then
    assert worker.status == WorkerStatus()
    assert not load.entered.is_set()
    assert threading.active_count() == threads


def test_job_before_start_is_refused(make_worker):
    worker = make_worker(start=False)
    with pytest.raises(ModelNotReadyError):
        worker.run(return_model, PATIENCE)


def test_status_is_replaced_and_never_changed(make_worker):
    # given
    load = Gate()
    worker = make_worker(load)
    loading = worker.status

    # when
    load.opened.set()
    worker.run(return_model, PATIENCE)

    # then
    assert (loading.state, loading.model) == (ModelState.LOADING, None)
    assert (worker.status.state, worker.status.model) == (ModelState.READY, "model")


# --- submit ---------------------------------------------------------------------------------------------------------


def test_submit_returns_before_the_job_runs_and_finishes_in_the_worker_thread(make_worker):
    # given
    load, done = Gate(), []
    worker = make_worker(load)

    # when
    future = worker.submit(
        return_model, PATIENCE, on_done=lambda done_future: done.append((done_future, threading.current_thread().name))
    )

    # then
    assert not future.done()
    load.opened.set()
    assert future.result(PATIENCE) == "model"
    eventually(lambda: done == [(future, "model-worker")])


def test_submitted_jobs_reach_their_deadlines_without_a_thread_each(busy_worker):
    # given
    worker, _ = busy_worker
    threads, started, ended = threading.active_count(), time.monotonic(), {}

    # when jobs of different deadlines wait while another one runs
    futures = {
        timeout_sec: worker.submit(
            return_model,
            timeout_sec,
            on_done=lambda _, timeout_sec=timeout_sec: ended.update({timeout_sec: time.monotonic() - started}),
        )
        for timeout_sec in (0.3, 0.1, 0.2)
    }
    assert threading.active_count() == threads

    # then each one fails at its own deadline
    for timeout_sec, future in futures.items():
        with pytest.raises(AskTimeoutError, match=f"{timeout_sec:g} s"):
            future.result(PATIENCE)
    eventually(lambda: len(ended) == 3)
    assert list(ended) == [0.1, 0.2, 0.3]
    assert all(timeout_sec <= ended[timeout_sec] < timeout_sec + 0.5 for timeout_sec in ended)
    assert worker.status.waiting == 0


def test_submitted_job_reaches_its_deadline_while_it_runs(make_worker):
    # given a job that never checks its control
    worker, gate, done = make_worker(), Gate(), []

    # when
    future = worker.submit(gate, 0.05, on_done=done.append)

    # then
    with pytest.raises(AskTimeoutError):
        future.result(PATIENCE)
    assert worker.status.running
    gate.opened.set()
    assert worker.run(return_model, PATIENCE) == "model"
    assert done == [future]


def test_submitted_job_is_cancelled_by_its_control(busy_worker):
    # given
    worker, _ = busy_worker
    control, done, ran = AskControl(), [], []
    future = worker.submit(lambda *_: ran.append(1), PATIENCE, control=control, on_done=done.append)

    # when
    control.cancel()

    # then
    with pytest.raises(AskCancelledError):
        future.result(0)
    assert (done, ran, worker.status.waiting) == ([future], [], 0)


def test_job_whose_control_is_cancelled_before_submit_never_runs(make_worker):
    control, ran = AskControl(), []
    control.cancel()
    future = make_worker().submit(lambda *_: ran.append(1), PATIENCE, control=control)
    with pytest.raises(AskCancelledError):
        future.result(PATIENCE)
    assert not ran


def test_submitted_job_reports_progress_in_the_worker_thread(make_worker):
    # given
    worker, reports = make_worker(), []

    def work(_, control):
        control.report(Progress(Stage.ENCODING))
        for number in range(1, 400):
            if control.wants_text:
                control.report(Progress(Stage.GENERATING, "a" * number, number))
            time.sleep(0.001)

    # when
    future = worker.submit(
        work, PATIENCE, on_progress=lambda progress: reports.append((progress, threading.current_thread().name))
    )
    future.result(PATIENCE)

    # then
    assert {thread for _, thread in reports} == {"model-worker"}
    assert reports[0][0] == Progress(Stage.ENCODING)
    tokens = [progress.answer_tokens for progress, _ in reports[1:]]
    assert tokens == sorted(set(tokens))
    assert 2 < len(tokens) < 100


def test_failing_progress_callback_fails_the_job_only(make_worker):
    # given
    worker = make_worker()

    # when
    future = worker.submit(
        lambda _, control: control.report(Progress(Stage.ENCODING)), PATIENCE, on_progress=lambda _: 1 / 0
    )

    # then
    with pytest.raises(ZeroDivisionError):
        future.result(PATIENCE)
    assert worker.run(return_model, PATIENCE) == "model"


@pytest.mark.parametrize("error", [ValueError("planted"), SystemExit("planted")])
def test_failing_done_callback_is_logged_with_its_traceback(make_worker, caplog, error):
    # given
    worker = make_worker()

    def planted(_):
        raise error

    # when
    with caplog.at_level(logging.ERROR):
        worker.submit(return_model, PATIENCE, on_done=planted).result(PATIENCE)
        assert worker.run(return_model, PATIENCE) == "model"

    # then
    (record,) = caplog.records
    assert record.exc_info[1] is error


def test_refused_submit_raises_and_does_not_call_back(make_worker):
    # given
    worker, gate, done = make_worker(queue_size=0), Gate(), []
    first = worker.submit(gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)

    # when
    with pytest.raises(BusyError):
        worker.submit(return_model, PATIENCE, on_done=done.append)

    # then
    gate.opened.set()
    assert first.result(PATIENCE) == "model"
    assert not done


# --- a full queue ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue_size", [0, 1, 3])
def test_full_queue_refuses_immediately(make_worker, clients, queue_size):
    # given
    worker, gate = make_worker(queue_size=queue_size), Gate()
    answers = [clients.submit(worker.run, gate, PATIENCE)]
    assert gate.entered.wait(PATIENCE)
    answers += [clients.submit(worker.run, gate, PATIENCE) for _ in range(queue_size)]
    eventually(lambda: worker.status.waiting == queue_size)

    # when
    started = time.monotonic()
    with pytest.raises(BusyError, match=f"{queue_size} waiting"):
        worker.run(gate, PATIENCE)

    # then
    assert time.monotonic() - started < 0.5
    gate.opened.set()
    assert [answer.result(PATIENCE) for answer in answers] == ["model"] * (queue_size + 1)
    assert worker.run(lambda *_: "free again", PATIENCE) == "free again"


def test_full_queue_while_loading(make_worker, clients):
    # given room for a running and a waiting job
    load = Gate()
    worker = make_worker(load, queue_size=1)
    answers = [clients.submit(worker.run, return_model, PATIENCE) for _ in range(2)]
    eventually(lambda: worker.status.waiting == 2)

    # then
    with pytest.raises(BusyError):
        worker.run(return_model, PATIENCE)
    load.opened.set()
    assert [answer.result(PATIENCE) for answer in answers] == ["model"] * 2


# --- deadlines ------------------------------------------------------------------------------------------------------


def test_deadline_while_loading(make_worker):
    # given
    load, ran = Gate(), []
    worker = make_worker(load)

    # when
    with pytest.raises(ModelNotReadyError, match=r"0\.05 s"):
        worker.run(lambda *_: ran.append(1), 0.05)

    # then the job has left the queue
    assert worker.status.waiting == 0
    load.opened.set()
    assert worker.run(return_model, PATIENCE) == "model"
    assert not ran


def test_deadline_while_running_stops_the_job(make_worker):
    # given
    worker = make_worker()
    ended = threading.Event()

    def job(model, control):
        try:
            until_cancelled(model, control)
        finally:
            ended.set()

    # then, whether the job or the worker sees the deadline first
    with pytest.raises(AskTimeoutError):
        worker.run(job, 0.05)
    assert ended.wait(PATIENCE)
    assert worker.run(return_model, PATIENCE) == "model"


def test_deadline_while_waiting(make_worker, clients):
    # given
    worker, gate, ran = make_worker(), Gate(), []
    first = clients.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)

    # when
    with pytest.raises(AskTimeoutError):
        worker.run(lambda *_: ran.append(1), 0.05)

    # then the job never runs
    assert worker.status.waiting == 0
    gate.opened.set()
    assert first.result(PATIENCE) == "model"
    assert worker.run(return_model, PATIENCE) == "model"
    assert not ran


def test_job_that_ignores_its_deadline_does_not_keep_the_client(make_worker):
    # given
    worker, gate = make_worker(), Gate()

    # when
    started = time.monotonic()
    with pytest.raises(AskTimeoutError, match=r"0\.05 s"):
        worker.run(gate, 0.05)

    # then
    assert time.monotonic() - started < 1
    gate.opened.set()
    assert worker.run(return_model, PATIENCE) == "model"


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("of the job"), TimeoutError("of the job's network"), AskCancelledError("x")]
)
def test_error_of_a_job_goes_to_its_client_and_the_worker_lives(make_worker, error):
    # given
    worker = make_worker()

    def fail(*_):
        raise error

    # then the client gets the error itself, even one that looks like the deadline
    with pytest.raises(type(error)) as caught:
        worker.run(fail, PATIENCE)
    assert caught.value is error
    assert worker.run(return_model, PATIENCE) == "model"
    assert worker.status.state is ModelState.READY


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ModelNotFoundError("no such model"), "no such model"), (KeyError("x"), "KeyError: 'x'")],
)
def test_failed_load_is_reported_to_waiting_and_later_clients(make_worker, clients, error, reason):
    # given
    gate = Gate()

    def load():
        gate()
        raise error

    worker = make_worker(load)
    waiting = [clients.submit(worker.run, return_model, PATIENCE) for _ in range(2)]
    eventually(lambda: worker.status.waiting == 2)

    # when
    gate.opened.set()

    # then
    for answer in waiting:
        with pytest.raises(ModelNotReadyError, match=f"{reason}$"):
            answer.result(PATIENCE)
    with pytest.raises(ModelNotReadyError, match=reason):
        worker.run(return_model, PATIENCE)
    assert (worker.status.state, worker.status.error) == (ModelState.FAILED, reason)


class Payload:
    """Represents frames and tensors."""


@pytest.mark.parametrize("fails", [False, True])
def test_worker_holds_nothing_of_a_finished_job(make_worker, fails):
    # given a job that leaves a result, or an error whose traceback holds its local variables
    worker, held = make_worker(), []

    def job(*_):
        payload = Payload()
        held.append(weakref.ref(payload))
        if fails:
            raise ValueError("with a traceback")
        return payload

    gc.collect()
    gc.disable()  # reference counting alone must free the error
    try:
        # when
        if fails:
            with pytest.raises(ValueError, match="traceback") as caught:
                worker.run(job, PATIENCE)
            del caught
        else:
            worker.run(job, PATIENCE)

        # then
        eventually(lambda: held[0]() is None)
    finally:
        gc.enable()


# --- cancelling and closing -----------------------------------------------------------------------------------------


def test_cancelled_control_stops_a_running_job(make_worker, clients):
    # given
    worker, control = make_worker(), AskControl()
    answer = clients.submit(worker.run, until_cancelled, PATIENCE, control=control)
    eventually(lambda: worker.status.running)

    # when
    control.cancel()

    # then
    with pytest.raises(AskCancelledError):
        answer.result(PATIENCE)


def test_job_cancelled_while_waiting_never_runs(make_worker, clients):
    # given
    worker, gate, control, ran = make_worker(), Gate(), AskControl(), []
    first = clients.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)
    second = clients.submit(worker.run, lambda *_: ran.append(1), PATIENCE, control=control)
    eventually(lambda: worker.status.waiting == 1)

    # when
    control.cancel()
    gate.opened.set()

    # then
    assert first.result(PATIENCE) == "model"
    with pytest.raises(AskCancelledError):
        second.result(PATIENCE)
    assert not ran


def test_panic_in_a_job_does_not_end_the_thread(make_worker):
    # given an error that "except Exception" does not catch, as the panics of Rust libraries
    worker = make_worker()

    def panic(*_):
        raise SystemExit("planted")

    # when / then
    with pytest.raises(RuntimeError, match="SystemExit: planted") as caught:
        worker.run(panic, PATIENCE)
    assert caught.traceback[-1].name == "panic"  # the log shows where it happened
    assert worker.run(lambda *_: "next", PATIENCE) == "next"


def test_panic_while_loading_is_reported(make_worker):
    def panic():
        raise SystemExit("planted")

    with pytest.raises(ModelNotReadyError, match="SystemExit: planted"):
        make_worker(panic).run(lambda *_: None, PATIENCE)


def test_job_cancelled_while_waiting_frees_its_position_immediately(make_worker, clients):
    # given
    worker, gate, control = make_worker(queue_size=1), Gate(), AskControl()
    first = clients.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)
    second = clients.submit(worker.run, lambda *_: "second", PATIENCE, control=control)
    eventually(lambda: worker.status.waiting == 1)

    # when
    control.cancel()

    # then
    with pytest.raises(AskCancelledError):
        second.result(PATIENCE)
    assert (worker.status.waiting, first.done()) == (0, False)
    third = clients.submit(worker.run, lambda *_: "third", PATIENCE)
    eventually(lambda: worker.status.waiting == 1)
    gate.opened.set()
    assert third.result(PATIENCE) == "third"
    first.result(PATIENCE)


def test_clients_share_the_queue(make_worker, clients):
    # given
    worker, gate, order = make_worker(queue_size=3), Gate(), []
    first = clients.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)
    answers = []
    for number in range(3):
        work = lambda *_, number=number: order.append(number)  # noqa: E731
        answers.append(clients.submit(worker.run, work, PATIENCE, client_id="many"))
        eventually(lambda number=number: worker.status.waiting == number + 1)

    # when
    one = clients.submit(worker.run, lambda *_: order.append("one"), PATIENCE, client_id="one")

    # then the newest job of the other client makes room
    with pytest.raises(BusyError, match="3 waiting"):
        answers.pop().result(PATIENCE)
    gate.opened.set()
    for answer in (first, one, *answers):
        answer.result(PATIENCE)
    assert order == [0, "one", 1]


def test_run_reports_progress_in_the_callers_thread(make_worker):
    # given
    worker, reports = make_worker(), []

    def work(_, control):
        control.report(Progress(Stage.ENCODING))
        for number in range(1, 400):
            if control.wants_text:
                control.report(Progress(Stage.GENERATING, "a" * number, number))
            time.sleep(0.001)
        return threading.current_thread()

    # when
    thread = worker.run(
        work, PATIENCE, on_progress=lambda progress: reports.append((progress, threading.current_thread()))
    )

    # then
    assert {where for _, where in reports} == {threading.current_thread()} != {thread}
    assert reports[0][0] == Progress(Stage.ENCODING)
    tokens = [progress.answer_tokens for progress, _ in reports[1:]]
    assert tokens == sorted(set(tokens))
    assert 2 < len(tokens) < 100


def test_failing_progress_callback_of_run_frees_the_worker(make_worker):
    # given
    worker = make_worker()

    def work(_, control):
        control.report(Progress(Stage.ENCODING))
        until_cancelled(_, control)

    # when / then
    with pytest.raises(ZeroDivisionError):
        worker.run(work, PATIENCE, on_progress=lambda _: 1 / 0)
    eventually(lambda: not worker.status.running)
    assert worker.run(lambda *_: "next", PATIENCE) == "next"


def test_close_during_a_job_fails_running_and_waiting_jobs(make_worker, clients):
    # given
    unloaded = []
    worker = make_worker(unload=lambda model: unloaded.append((model, threading.current_thread().name)))
    answers = [clients.submit(worker.run, until_cancelled, PATIENCE) for _ in range(3)]
    eventually(lambda: worker.status.running and worker.status.waiting == 2)

    # when
    ended = worker.close(PATIENCE)

    # then
    assert ended
    for answer in answers:
        with pytest.raises(AskCancelledError):
            answer.result(PATIENCE)
    assert unloaded == [("model", "model-worker")]
    assert worker.status == WorkerStatus()


def test_close_while_loading_times_out_and_unloads_later(make_worker, clients):
    # given
    load, unloaded = Gate(), []
    worker = make_worker(load, unload=unloaded.append)
    answer = clients.submit(worker.run, return_model, PATIENCE)
    eventually(lambda: worker.status.waiting == 1)

    # when the thread cannot end
    assert not worker.close(0.05)

    # then the client is answered immediately, and the model is unloaded once it is loaded
    with pytest.raises(AskCancelledError):
        answer.result(PATIENCE)
    load.opened.set()
    assert worker.close(PATIENCE)
    assert unloaded == ["model"]
    assert (worker.status.state, worker.status.model) == (ModelState.UNLOADED, None)


def test_close_deep_inside_a_job_returns_false(make_worker, clients):
    # given
    worker, gate = make_worker(), Gate()
    answer = clients.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)

    # then
    assert not worker.close(0.05)
    with pytest.raises(AskCancelledError):
        answer.result(PATIENCE)
    gate.opened.set()
    assert worker.close(PATIENCE)


def test_job_after_close_is_refused_immediately(make_worker):
    # given
    worker = make_worker()

    # when
    assert worker.close(PATIENCE)

    # then
    with pytest.raises(AskCancelledError):
        worker.run(return_model, PATIENCE)
    assert worker.close(PATIENCE)


def test_close_before_start(make_worker):
    assert make_worker(start=False).close(0)


def test_close_ends_both_threads(make_worker):
    worker = make_worker()
    worker.run(return_model, PATIENCE)
    assert worker.close(PATIENCE)
    eventually(lambda: not any(thread.name.startswith("model-worker") for thread in threading.enumerate()))


# --- idle time ------------------------------------------------------------------------------------------------------


def test_idle_task_runs_repeatedly_between_jobs(make_worker):
    # given
    seen = []
    worker = make_worker(
        idle_tasks=[IdleTask("work", lambda model, _: seen.append(model), quiet_sec=0.0, period_sec=0.01)]
    )

    # then it runs again and again, before and after jobs, and does not count as a job
    eventually(lambda: len(seen) > 3)
    assert worker.run(return_model, PATIENCE) == "model"
    count = len(seen)
    eventually(lambda: len(seen) > count)
    assert set(seen) == {"model"}
    assert not worker.status.running


def test_idle_task_waits_for_the_quiet_time(make_worker):
    # given
    seen = []
    worker = make_worker(
        idle_tasks=[IdleTask("work", lambda *_: seen.append(time.monotonic()), quiet_sec=0.2, period_sec=0.01)]
    )

    # when jobs come at shorter intervals
    for _ in range(10):
        worker.run(lambda *_: None, PATIENCE)
        last = time.monotonic()
        time.sleep(0.03)

    # then
    eventually(lambda: seen)
    assert seen[0] >= last + 0.19


def test_idle_task_rests_for_the_remaining_share(make_worker):
    # given a task that may take a quarter of the time
    began, ended = [], []

    def task(*_):
        began.append(time.monotonic())
        time.sleep(0.05)
        ended.append(time.monotonic())

    worker = make_worker(idle_tasks=[IdleTask("work", task, quiet_sec=0.0, period_sec=0.0, max_duty=0.25)])
    # when jobs, which do not count, come between
    eventually(lambda: len(began) == 2)
    assert worker.run(return_model, PATIENCE) == "model"
    eventually(lambda: len(began) == 3)
    # then
    for start, end, following in zip(began, ended, began[1:], strict=False):
        assert following - end >= 3 * (end - start)


def test_idle_task_rests_after_it_was_interrupted(make_worker):
    # given a task that works until a job comes
    entered = threading.Event()
    calls = []

    def task(_, control):
        calls.append((time.monotonic(), entered.set()))
        until_cancelled(_, control)

    worker = make_worker(idle_tasks=[IdleTask("work", task, quiet_sec=0.0, period_sec=0.0, max_duty=0.5)])
    assert entered.wait(PATIENCE)
    time.sleep(0.1)
    # when
    assert worker.run(return_model, PATIENCE) == "model"
    answered = time.monotonic()
    eventually(lambda: len(calls) == 2)
    # then
    assert calls[1][0] >= answered + 0.05


def test_job_interrupts_the_idle_task(make_worker):
    # given a task that returns only when it is cancelled
    entered = threading.Event()

    def task(_, control):
        entered.set()
        until_cancelled(_, control)

    worker = make_worker(idle_tasks=[IdleTask("work", task, quiet_sec=0.0)], queue_size=0)
    assert entered.wait(PATIENCE)

    # then the worker counts as free
    assert not worker.status.running
    assert worker.run(return_model, PATIENCE) == "model"
    assert worker.status.idle_errors == {}
    entered.clear()
    assert entered.wait(PATIENCE)  # the task continues afterwards


def test_close_interrupts_the_idle_task(make_worker):
    entered = threading.Event()
    worker = make_worker(
        idle_tasks=[IdleTask("work", lambda _, control: (entered.set(), until_cancelled(_, control)), quiet_sec=0.0)]
    )
    assert entered.wait(PATIENCE)
    assert worker.close(PATIENCE)
    assert worker.status.state is ModelState.UNLOADED


def test_failed_idle_task_is_reported_and_not_repeated(make_worker):
    # given
    calls = []

    def task(*_):
        calls.append(1)
        raise ValueError("no room")

    worker = make_worker(idle_tasks=[IdleTask("work", task, quiet_sec=0.0, period_sec=0.0)])

    # then
    eventually(lambda: worker.status.idle_errors == {"work": "ValueError: no room"})
    assert worker.run(return_model, PATIENCE) == "model"
    time.sleep(0.05)
    assert len(calls) == 1


def test_idle_model_is_unloaded_and_loaded_again_for_the_next_job(make_worker):
    # given
    loads, unloads = iter(["first", "second"]), []
    worker = make_worker(lambda: next(loads), unload=unloads.append, unload_after_idle_sec=0.1)
    assert worker.run(return_model, PATIENCE) == "first"

    # when
    eventually(lambda: worker.status.state is ModelState.UNLOADED)

    # then
    assert (unloads, worker.status.model) == (["first"], None)
    assert worker.run(return_model, PATIENCE) == "second"
    assert worker.status.state is ModelState.READY


def test_failed_unload_is_reported_and_the_next_job_loads_again(make_worker):
    # given
    unloads = iter([RuntimeError("sticky"), None])

    def unload(_):
        if error := next(unloads, None):
            raise error

    worker = make_worker(unload=unload, unload_after_idle_sec=0.05)
    # when
    eventually(lambda: worker.status.error)
    # then
    assert "RuntimeError: sticky" in worker.status.error
    assert worker.run(return_model, PATIENCE) == "model"
    assert worker.status.error == ""


def test_idle_task_does_not_keep_the_model_loaded(make_worker):
    seen = []
    worker = make_worker(
        idle_tasks=[IdleTask("work", lambda *_: seen.append(1), quiet_sec=0.0, period_sec=0.01)],
        unload_after_idle_sec=0.15,
    )
    eventually(lambda: worker.status.state is ModelState.UNLOADED)
    assert seen
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count


def test_idle_task_that_needs_the_model_keeps_it_loaded_and_loads_it_again(make_worker):
    needed, loads = threading.Event(), []
    needed.set()
    worker = make_worker(
        lambda: loads.append(1) or "model",
        idle_tasks=[IdleTask("work", lambda *_: None, quiet_sec=0.0, period_sec=0.01, needs_model=needed.is_set)],
        unload_after_idle_sec=0.05,
    )
    eventually(lambda: worker.status.state is ModelState.READY)
    time.sleep(0.15)
    assert worker.status.state is ModelState.READY
    # when it is no longer needed
    needed.clear()
    worker.wake()
    eventually(lambda: worker.status.state is ModelState.UNLOADED)
    assert len(loads) == 1
    # and when it is needed again
    needed.set()
    worker.wake()
    eventually(lambda: worker.status.state is ModelState.READY)
    assert len(loads) == 2


def test_load_for_an_idle_task_that_fails_is_repeated_after_a_pause(make_worker):
    outcomes = iter(["first", RuntimeError("not now"), "third"])
    needed = threading.Event()

    def load():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    task = IdleTask("work", lambda *_: None, quiet_sec=0.0, retry_sec=0.1, needs_model=needed.is_set)
    worker = make_worker(load, idle_tasks=[task], unload_after_idle_sec=0.01)
    eventually(lambda: worker.status.state is ModelState.UNLOADED)
    needed.set()
    worker.wake()
    eventually(lambda: "not now" in worker.status.error)
    eventually(lambda: worker.status.model == "third")


def test_idle_tasks_take_turns_and_one_that_fails_stops_alone(make_worker):
    seen = []

    def failing(*_):
        seen.append("second")
        if seen.count("second") == 3:
            raise ValueError("no room")

    worker = make_worker(
        idle_tasks=[
            IdleTask("first", lambda *_: seen.append("first"), quiet_sec=0.0, period_sec=0.002),
            IdleTask("second", failing, quiet_sec=0.0, period_sec=0.002),
        ]
    )
    eventually(lambda: worker.status.idle_errors)
    assert worker.status.idle_errors == {"second": "ValueError: no room"}
    assert seen.count("first") >= 2
    count = seen.count("first")
    eventually(lambda: seen.count("first") > count + 3)
    assert seen.count("second") == 3


def test_failed_reload_fails_only_the_waiting_jobs(make_worker):
    # given a device that is full for a while
    outcomes = iter(["first", MemoryError("the device is full"), "third"])

    def load():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    worker = make_worker(load, unload_after_idle_sec=0.05)
    assert worker.run(return_model, PATIENCE) == "first"
    eventually(lambda: worker.status.state is ModelState.UNLOADED)

    # then
    with pytest.raises(ModelNotReadyError, match="MemoryError: the device is full"):
        worker.run(return_model, PATIENCE)
    assert (worker.status.state, worker.status.running) == (ModelState.UNLOADED, False)
    assert "full" in worker.status.error
    assert worker.run(return_model, PATIENCE) == "third"
    assert (worker.status.state, worker.status.error) == (ModelState.READY, "")


def job_number(number):
    """Return a job that checks its control up to three times; every seventh fails."""

    def work(_, control):
        for _ in range(number % 4):
            control.check()
            time.sleep(0.0005)
        if number % 7 == 0:
            raise ValueError(number)
        return number

    return work


@pytest.mark.parametrize("blocking", [True, False])
def test_close_under_load_leaves_no_client_waiting(make_worker, blocking):
    # given clients with short deadlines that cancel, fail and meet full queues
    worker = make_worker(queue_size=4, idle_tasks=[IdleTask("work", until_cancelled, quiet_sec=0.0, period_sec=0.0)])
    outcomes, expected = [], (AskCancelledError, AskTimeoutError, BusyError, ValueError)

    def answer(*arguments, **options):
        return worker.run(*arguments, **options) if blocking else worker.submit(*arguments, **options).result(PATIENCE)

    def ask(client):
        for number in range(client, client + 40):
            control = AskControl()
            if number % 5 == 0:
                control.cancel()
            try:
                result = answer(job_number(number), 0.001 * (number % 6) + 0.0005, control=control)
                outcomes.append(result == number)
            except expected:
                outcomes.append(True)
        return True

    # when
    with ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(ask, client) for client in range(16)]
        time.sleep(0.1)
        while not all(client.done() for client in clients[:8]):
            time.sleep(0.01)
        assert worker.close(PATIENCE)

        # then
        assert all(client.result(PATIENCE) for client in clients)
    assert len(outcomes) == 16 * 40
    assert all(outcomes)
    assert worker.status.waiting == 0


# --- shortages ------------------------------------------------------------------------------------------------------


def short_of_memory(_, control):
    control.ran_out_of_memory = True
    raise DeviceMemoryError("no memory left")


def thread_of_job(*_):
    return threading.current_thread()


@pytest.mark.parametrize("by_retry", [False, True])
def test_worker_continues_in_a_new_thread_after_a_shortage(make_worker, by_retry):
    # given libraries that fail for the life of a thread
    unloaded = []
    worker = make_worker(unload=unloaded.append)
    first = worker.run(thread_of_job, PATIENCE)
    assert worker.run(thread_of_job, PATIENCE) is first

    # when
    if by_retry:  # a question that a retry answered
        worker.run(lambda _, control: setattr(control, "ran_out_of_memory", True), PATIENCE)
    else:
        with pytest.raises(DeviceMemoryError):
            worker.run(short_of_memory, PATIENCE)

    # then
    second = worker.run(thread_of_job, PATIENCE)
    assert second is not first
    assert worker.run(thread_of_job, PATIENCE) is second
    assert worker.run(return_model, PATIENCE) == "model"
    assert worker.close(PATIENCE)
    assert unloaded == ["model"]
    assert not first.is_alive()
    assert not second.is_alive()


def test_worker_keeps_its_thread_while_no_other_can_start(make_worker, monkeypatch):
    # given
    worker = make_worker()
    first = worker.run(thread_of_job, PATIENCE)

    def no_thread(*_):
        raise RuntimeError("can't start new thread")

    # when
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(DeviceMemoryError):
            worker.run(short_of_memory, PATIENCE)
        assert worker.run(thread_of_job, PATIENCE) is first

    # then
    assert worker.run(thread_of_job, PATIENCE) is not first


def test_first_load_without_memory_is_repeated_for_the_next_job(make_worker):
    # given
    outcomes = iter([DeviceMemoryError("the device is full"), DeviceMemoryError("still full"), "model"])

    def load():
        if isinstance(outcome := next(outcomes), Exception):
            raise outcome
        return outcome

    worker = make_worker(load)
    eventually(lambda: worker.status.error)
    assert (worker.status.state, worker.status.error) == (ModelState.UNLOADED, "the device is full")

    # then
    with pytest.raises(ModelNotReadyError, match="still full"):
        worker.run(return_model, PATIENCE)
    assert worker.run(return_model, PATIENCE) == "model"
    assert (worker.status.state, worker.status.error) == (ModelState.READY, "")


def test_job_without_memory_in_python_is_a_shortage(make_worker):
    worker = make_worker()
    with pytest.raises(DeviceMemoryError, match=r"ran out of memory \(MemoryError\): "):
        worker.run(lambda *_: bytearray(1 << 62), PATIENCE)
    assert worker.run(return_model, PATIENCE) == "model"


def test_idle_task_without_memory_runs_again_after_the_next_answer(make_worker):
    # given
    outcomes, seen = iter([DeviceMemoryError("the device is full")]), []

    def task(*_):
        if error := next(outcomes, None):
            raise error
        seen.append(1)

    worker = make_worker(idle_tasks=[IdleTask("work", task, quiet_sec=0.0, period_sec=0.01)])
    eventually(lambda: worker.status.idle_errors == {"work": "the device is full"})
    time.sleep(0.05)
    assert not seen

    # when
    worker.run(return_model, PATIENCE)

    # then
    eventually(lambda: seen)
    assert worker.status.idle_errors == {}


def test_idle_task_without_memory_runs_again_after_pauses_that_double(make_worker):
    # given
    calls = []

    def task(*_):
        calls.append(time.monotonic())
        if len(calls) < 4:
            raise DeviceMemoryError("the device is full")

    # when
    worker = make_worker(idle_tasks=[IdleTask("work", task, quiet_sec=0.0, period_sec=0.01, retry_sec=0.1)])
    eventually(lambda: worker.status.idle_errors == {"work": "the device is full"})
    eventually(lambda: len(calls) > 5)

    # then
    assert worker.status.idle_errors == {}
    pauses = [later - sooner for sooner, later in pairwise(calls[:4])]
    assert all(pause >= expected for pause, expected in zip(pauses, (0.1, 0.2, 0.4), strict=True))


def test_pause_of_an_idle_task_that_stays_without_memory_is_bounded(make_worker):
    calls = []

    def task(*_):
        calls.append(time.monotonic())
        raise DeviceMemoryError("the device is full")

    make_worker(idle_tasks=[IdleTask("work", task, quiet_sec=0.0, retry_sec=0.002)])
    eventually(lambda: len(calls) > 20)
