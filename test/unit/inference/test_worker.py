"""The thread that owns the model: queue, deadlines, failures, and its end."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    BusyError,
    ModelNotFoundError,
    ModelNotReadyError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.inference.worker import IdleTask, ModelState, ModelWorker

PATIENCE = 10.0  # seconds; only ever waited when something is wrong


class Gate:
    """A job, or a load, that tells when it runs and ends when it is let."""

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


def eventually(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def make_worker():
    """Gives started workers, and stops them in the end."""
    workers = []

    def make(load=lambda: "model", queue_size=2, *, start=True, **arguments):
        worker = ModelWorker(load, queue_size, **arguments)
        workers.append(worker)
        if start:
            worker.start()
        return worker

    yield make
    for worker in workers:
        assert worker.stop(PATIENCE)


@pytest.fixture
def askers():
    """Threads that ask; a test ends only when all of them have their answer."""
    with ThreadPoolExecutor(32) as pool:
        yield pool


# --- the ordinary way -----------------------------------------------------------------------------------------------


def test_job_gets_model_and_control_in_the_workers_thread(make_worker):
    # given
    worker = make_worker(threading.current_thread)

    # when
    model, control, thread = worker.run(lambda model, control: (model, control, threading.current_thread()), PATIENCE)

    # then
    assert model is thread is not threading.current_thread()
    assert 0 < control.remaining() <= PATIENCE
    eventually(lambda: not worker.running)
    assert (worker.state, worker.waiting) == (ModelState.READY, 0)


def test_jobs_run_one_at_a_time_in_order(make_worker, askers):
    # given
    worker, gate, order = make_worker(queue_size=5), Gate(), []
    first = askers.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)

    # when
    for number in range(5):
        askers.submit(worker.run, lambda *_, number=number: order.append(number), PATIENCE)
        eventually(lambda number=number: worker.waiting == number + 1)
    assert worker.running
    gate.opened.set()

    # then
    first.result(PATIENCE)
    eventually(lambda: order == [0, 1, 2, 3, 4])


def test_jobs_wait_for_the_model(make_worker, askers):
    # given
    load = Gate("late model")
    worker = make_worker(load)

    # when
    answer = askers.submit(worker.run, lambda model, _: model, PATIENCE)
    eventually(lambda: worker.waiting == 1)
    assert worker.state is ModelState.LOADING
    load.opened.set()

    # then
    assert answer.result(PATIENCE) == "late model"


def test_before_start_nothing_is_loaded(make_worker):
    # given
    load = Gate()

    # when
    worker = make_worker(load, start=False)

    # then
    assert worker.state is ModelState.UNLOADED
    assert not load.entered.is_set()


# --- a full queue ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue_size", [0, 1, 3])
def test_full_queue_refuses_at_once(make_worker, askers, queue_size):
    # given
    worker, gate = make_worker(queue_size=queue_size), Gate()
    answers = [askers.submit(worker.run, gate, PATIENCE)]
    assert gate.entered.wait(PATIENCE)
    answers += [askers.submit(worker.run, gate, PATIENCE) for _ in range(queue_size)]
    eventually(lambda: worker.waiting == queue_size)

    # when
    started = time.monotonic()
    with pytest.raises(BusyError, match=f"{queue_size} asks are waiting already: ask again"):
        worker.run(gate, PATIENCE)

    # then
    assert time.monotonic() - started < 0.5
    gate.opened.set()
    assert [answer.result(PATIENCE) for answer in answers] == ["model"] * (queue_size + 1)
    assert worker.run(lambda *_: "free again", PATIENCE) == "free again"


def test_full_queue_while_loading(make_worker, askers):
    # given room for a running and a waiting job
    load = Gate()
    worker = make_worker(load, queue_size=1)
    answers = [askers.submit(worker.run, lambda model, _: model, PATIENCE) for _ in range(2)]
    eventually(lambda: worker.waiting == 2)

    # then
    with pytest.raises(BusyError):
        worker.run(lambda model, _: model, PATIENCE)
    load.opened.set()
    assert [answer.result(PATIENCE) for answer in answers] == ["model"] * 2


# --- deadlines ------------------------------------------------------------------------------------------------------


def test_deadline_while_loading(make_worker):
    # given
    load, ran = Gate(), []
    worker = make_worker(load)

    # when
    with pytest.raises(ModelNotReadyError, match=r"still loading after 0\.05 s: ask again later"):
        worker.run(lambda *_: ran.append(1), 0.05)

    # then it has left the queue
    assert worker.waiting == 0
    load.opened.set()
    assert worker.run(lambda model, _: model, PATIENCE) == "model"
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

    # then, whichever of the two notices first
    with pytest.raises(AskTimeoutError, match="allow more time, fewer tokens or fewer frames"):
        worker.run(job, 0.05)
    assert ended.wait(PATIENCE)
    assert worker.run(lambda model, _: model, PATIENCE) == "model"


def test_deadline_while_waiting(make_worker, askers):
    # given
    worker, gate, ran = make_worker(), Gate(), []
    first = askers.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)

    # when
    with pytest.raises(AskTimeoutError):
        worker.run(lambda *_: ran.append(1), 0.05)

    # then it never runs
    assert worker.waiting == 0
    gate.opened.set()
    assert first.result(PATIENCE) == "model"
    assert worker.run(lambda model, _: model, PATIENCE) == "model"
    assert not ran


def test_job_that_ignores_its_deadline_does_not_keep_the_client_id(make_worker):
    # given
    worker, gate = make_worker(), Gate()

    # when
    started = time.monotonic()
    with pytest.raises(AskTimeoutError, match=r"no answer within 0\.05 s: allow more time"):
        worker.run(gate, 0.05)

    # then
    assert time.monotonic() - started < 1
    gate.opened.set()
    assert worker.run(lambda model, _: model, PATIENCE) == "model"


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("of the job"), TimeoutError("of the job's network"), AskCancelledError("x")]
)
def test_jobs_error_goes_to_its_client_id_and_the_worker_lives(make_worker, error):
    # given
    worker = make_worker()

    def fail(*_):
        raise error

    # then even one that looks like the deadline
    with pytest.raises(type(error)) as caught:
        worker.run(fail, PATIENCE)
    assert caught.value is error
    assert worker.run(lambda model, _: model, PATIENCE) == "model"
    assert worker.state is ModelState.READY


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ModelNotFoundError("no such model"), "no such model"), (KeyError("x"), "KeyError: 'x'")],
)
def test_failed_load_tells_those_who_wait_and_those_who_come(make_worker, askers, error, reason):
    # given
    gate = Gate()

    def load():
        gate()
        raise error

    worker = make_worker(load)
    waiting = [askers.submit(worker.run, lambda model, _: model, PATIENCE) for _ in range(2)]
    eventually(lambda: worker.waiting == 2)

    # when
    gate.opened.set()

    # then
    for answer in waiting:
        with pytest.raises(ModelNotReadyError, match=f"^the model could not be loaded: {reason}$"):
            answer.result(PATIENCE)
    with pytest.raises(ModelNotReadyError, match=reason):
        worker.run(lambda model, _: model, PATIENCE)
    assert (worker.state, worker.error) == (ModelState.FAILED, reason)


class Payload:
    """Stands for frames and tensors."""


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_a_job_is_held_after_it(make_worker, fails):
    # given a job that leaves a result, or an error with a traceback through its local variables
    worker, held = make_worker(), []

    def job(*_):
        payload = Payload()
        held.append(weakref.ref(payload))
        if fails:
            raise ValueError("with a traceback")
        return payload

    gc.collect()
    gc.disable()  # an error must not hold itself alive until the collector comes by
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


# --- cancelling and stopping ----------------------------------------------------------------------------------------


def test_cancel_by_control(make_worker, askers):
    # given
    worker, control = make_worker(), AskControl()
    answer = askers.submit(worker.run, until_cancelled, PATIENCE, control=control)
    eventually(lambda: worker.running)

    # when
    control.cancel()

    # then
    with pytest.raises(AskCancelledError):
        answer.result(PATIENCE)


def test_cancelled_while_waiting_it_never_runs(make_worker, askers):
    # given
    worker, gate, control, ran = make_worker(), Gate(), AskControl(), []
    first = askers.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)
    second = askers.submit(worker.run, lambda *_: ran.append(1), PATIENCE, control=control)
    eventually(lambda: worker.waiting == 1)

    # when
    control.cancel()
    gate.opened.set()

    # then
    assert first.result(PATIENCE) == "model"
    with pytest.raises(AskCancelledError):
        second.result(PATIENCE)
    assert not ran


def test_panic_in_a_job_does_not_end_the_thread(make_worker):
    # given what no "except Exception" catches, as the panics of libraries in Rust
    worker = make_worker()

    def panic(*_):
        raise SystemExit("planted")

    # when / then
    with pytest.raises(RuntimeError, match="SystemExit: planted") as caught:
        worker.run(panic, PATIENCE)
    assert caught.traceback[-1].name == "panic"  # where it was, for the log
    assert worker.run(lambda *_: "next", PATIENCE) == "next"


def test_panic_while_loading_is_told(make_worker):
    def panic():
        raise SystemExit("planted")

    with pytest.raises(ModelNotReadyError, match="SystemExit: planted"):
        make_worker(panic).run(lambda *_: None, PATIENCE)


def test_cancelled_while_waiting_it_makes_room_and_its_client_id_hears_at_once(make_worker, askers):
    # given
    worker, gate, control = make_worker(queue_size=1), Gate(), AskControl()
    first = askers.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)
    second = askers.submit(worker.run, lambda *_: "second", PATIENCE, control=control)
    eventually(lambda: worker.waiting == 1)

    # when
    control.cancel()

    # then
    with pytest.raises(AskCancelledError):
        second.result(PATIENCE)
    assert (worker.waiting, first.done()) == (0, False)
    third = askers.submit(worker.run, lambda *_: "third", PATIENCE)
    eventually(lambda: worker.waiting == 1)
    gate.opened.set()
    assert third.result(PATIENCE) == "third"
    first.result(PATIENCE)


def test_clients_share_the_queue(make_worker, askers):
    # given
    worker, gate, order = make_worker(queue_size=3), Gate(), []
    first = askers.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)
    answers = []
    for number in range(3):
        work = lambda *_, number=number: order.append(number)  # noqa: E731
        answers.append(askers.submit(worker.run, work, PATIENCE, client_id="many"))
        eventually(lambda number=number: worker.waiting == number + 1)

    # when
    one = askers.submit(worker.run, lambda *_: order.append("one"), PATIENCE, client_id="one")

    # then
    with pytest.raises(BusyError, match="of others who ask less"):
        answers.pop().result(PATIENCE)
    gate.opened.set()
    for answer in (first, one, *answers):
        answer.result(PATIENCE)
    assert order == [0, "one", 1]


def test_progress_is_told_to_the_client_id(make_worker):
    # given
    worker, on_progress = make_worker(), []

    def work(_, control):
        control.report(Progress(Stage.ENCODING))
        for number in range(1, 400):
            if control.wants_text:
                control.report(Progress(Stage.GENERATING, "a" * number, number))
            time.sleep(0.001)
        return threading.current_thread()

    # when
    thread = worker.run(
        work, PATIENCE, on_progress=lambda progress: on_progress.append((progress, threading.current_thread()))
    )

    # then
    assert {where for _, where in on_progress} == {threading.current_thread()} != {thread}
    assert on_progress[0][0] == Progress(Stage.ENCODING)
    tokens = [progress.answer_tokens for progress, _ in on_progress[1:]]
    assert tokens == sorted(set(tokens))
    assert 2 < len(tokens) < 100


def test_client_id_that_cannot_be_told_lets_the_worker_go(make_worker):
    # given
    worker = make_worker()

    def work(_, control):
        control.report(Progress(Stage.ENCODING))
        until_cancelled(_, control)

    # when / then
    with pytest.raises(ZeroDivisionError):
        worker.run(work, PATIENCE, on_progress=lambda _: 1 / 0)
    eventually(lambda: not worker.running)
    assert worker.run(lambda *_: "next", PATIENCE) == "next"


def test_stop_during_a_job_answers_its_client_id_and_those_who_wait(make_worker, askers):
    # given
    unloaded = []
    worker = make_worker(unload=lambda model: unloaded.append((model, threading.current_thread().name)))
    answers = [askers.submit(worker.run, until_cancelled, PATIENCE) for _ in range(3)]
    eventually(lambda: worker.running and worker.waiting == 2)

    # when
    ended = worker.stop(PATIENCE)

    # then
    assert ended
    for answer in answers:
        with pytest.raises(AskCancelledError):
            answer.result(PATIENCE)
    assert unloaded == [("model", "model-worker")]
    assert (worker.state, worker.resource, worker.waiting) == (ModelState.UNLOADED, None, 0)


def test_stop_while_loading(make_worker, askers):
    # given
    load, unloaded = Gate(), []
    worker = make_worker(load, unload=unloaded.append)
    answer = askers.submit(worker.run, lambda model, _: model, PATIENCE)
    eventually(lambda: worker.waiting == 1)

    # when it cannot end at once
    assert not worker.stop(0.05)

    # then the client_id hears at once, and the model is given back when it is there
    with pytest.raises(AskCancelledError, match="going down"):
        answer.result(PATIENCE)
    load.opened.set()
    assert worker.stop(PATIENCE)
    assert unloaded == ["model"]
    assert (worker.state, worker.resource) == (ModelState.UNLOADED, None)


def test_stop_deep_inside_a_job_says_so(make_worker, askers):
    # given
    worker, gate = make_worker(), Gate()
    answer = askers.submit(worker.run, gate, PATIENCE)
    assert gate.entered.wait(PATIENCE)

    # then
    assert not worker.stop(0.05)
    with pytest.raises(AskCancelledError):
        answer.result(PATIENCE)
    gate.opened.set()
    assert worker.stop(PATIENCE)


def test_ask_after_stop_is_refused_at_once(make_worker):
    # given
    worker = make_worker()

    # when
    assert worker.stop(PATIENCE)

    # then
    with pytest.raises(AskCancelledError, match="the ask was refused: the node is going down"):
        worker.run(lambda model, _: model, PATIENCE)
    assert worker.stop(PATIENCE)


def test_stop_before_start(make_worker):
    assert make_worker(start=False).stop(0)


# --- while nobody asks ----------------------------------------------------------------------------------------------


def test_works_ahead_while_it_is_quiet(make_worker):
    # given
    seen = []
    worker = make_worker(idle_task=IdleTask(lambda model, _: seen.append(model), quiet_sec=0.0, period_sec=0.01))

    # then again and again, beside jobs, and not as a job
    eventually(lambda: len(seen) > 3)
    assert worker.run(lambda model, _: model, PATIENCE) == "model"
    count = len(seen)
    eventually(lambda: len(seen) > count)
    assert set(seen) == {"model"}
    assert not worker.running


def test_no_work_ahead_before_it_has_been_quiet_for_long_enough(make_worker):
    # given
    seen = []
    worker = make_worker(idle_task=IdleTask(lambda *_: seen.append(time.monotonic()), quiet_sec=0.2, period_sec=0.01))

    # when asked every now and then
    for _ in range(10):
        worker.run(lambda *_: None, PATIENCE)
        last = time.monotonic()
        time.sleep(0.03)

    # then
    eventually(lambda: seen)
    assert seen[0] >= last + 0.19


def test_a_job_ends_work_ahead_at_once(make_worker):
    # given work that never ends by itself
    entered = threading.Event()

    def ahead(_, control):
        entered.set()
        until_cancelled(_, control)

    worker = make_worker(idle_task=IdleTask(ahead, quiet_sec=0.0), queue_size=0)
    assert entered.wait(PATIENCE)

    # then it counts as free
    assert not worker.running
    assert worker.run(lambda model, _: model, PATIENCE) == "model"
    assert worker.idle_error == ""
    entered.clear()
    assert entered.wait(PATIENCE)  # and goes on afterwards


def test_stop_ends_work_ahead(make_worker):
    entered = threading.Event()
    worker = make_worker(
        idle_task=IdleTask(lambda _, control: (entered.set(), until_cancelled(_, control)), quiet_sec=0.0)
    )
    assert entered.wait(PATIENCE)
    assert worker.stop(PATIENCE)
    assert worker.state is ModelState.UNLOADED


def test_failed_work_ahead_is_told_and_not_tried_again(make_worker):
    # given
    calls = []

    def ahead(*_):
        calls.append(1)
        raise ValueError("no room")

    worker = make_worker(idle_task=IdleTask(ahead, quiet_sec=0.0, period_sec=0.0))

    # then
    eventually(lambda: worker.idle_error == "ValueError: no room")
    assert worker.run(lambda model, _: model, PATIENCE) == "model"
    time.sleep(0.05)
    assert len(calls) == 1


def test_idle_model_is_unloaded_and_loaded_again_for_the_next_job(make_worker):
    # given
    loads, unloads = iter(["first", "second"]), []
    worker = make_worker(lambda: next(loads), unload=unloads.append, unload_after_idle_sec=0.1)
    assert worker.run(lambda model, _: model, PATIENCE) == "first"

    # when
    eventually(lambda: worker.state is ModelState.UNLOADED)

    # then
    assert (unloads, worker.resource) == (["first"], None)
    assert worker.run(lambda model, _: model, PATIENCE) == "second"
    assert worker.state is ModelState.READY


def test_failed_unloading_is_told_and_the_next_job_loads_again(make_worker):
    # given
    unloads = iter([RuntimeError("sticky"), None])

    def unload(_):
        if error := next(unloads, None):
            raise error

    worker = make_worker(unload=unload, unload_after_idle_sec=0.05)
    # when
    eventually(lambda: worker.error)
    # then
    assert worker.error == "the model could not be unloaded: RuntimeError: sticky"
    assert worker.run(lambda model, _: model, PATIENCE) == "model"
    assert worker.error == ""


def test_working_ahead_does_not_keep_the_model_loaded(make_worker):
    seen = []
    worker = make_worker(
        idle_task=IdleTask(lambda *_: seen.append(1), quiet_sec=0.0, period_sec=0.01),
        unload_after_idle_sec=0.15,
    )
    eventually(lambda: worker.state is ModelState.UNLOADED)
    assert seen
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count


def test_model_that_cannot_be_loaded_again_costs_only_the_jobs_that_wait(make_worker):
    # given a device that is full for a while
    outcomes = iter(["first", MemoryError("the device is full"), "third"])

    def load():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    worker = make_worker(load, unload_after_idle_sec=0.05)
    assert worker.run(lambda model, _: model, PATIENCE) == "first"
    eventually(lambda: worker.state is ModelState.UNLOADED)

    # then
    with pytest.raises(ModelNotReadyError, match="could not be loaded: MemoryError: the device is full"):
        worker.run(lambda model, _: model, PATIENCE)
    assert (worker.state, worker.running) == (ModelState.UNLOADED, False)
    assert "full" in worker.error
    assert worker.run(lambda model, _: model, PATIENCE) == "third"
    assert (worker.state, worker.error) == (ModelState.READY, "")


def test_many_clients_cancellers_and_a_stop_leave_nobody_waiting(make_worker):
    # given askers that hurry, cancel, fail and meet full queues
    worker = make_worker(queue_size=4, idle_task=IdleTask(until_cancelled, quiet_sec=0.0, period_sec=0.0))
    outcomes, expected = [], (AskCancelledError, AskTimeoutError, BusyError, ValueError)

    def job(number):
        def work(_, control):
            for _ in range(number % 4):
                control.check()
                time.sleep(0.0005)
            if number % 7 == 0:
                raise ValueError(number)
            return number

        return work

    def ask(client_id):
        for number in range(client_id, client_id + 40):
            control = AskControl()
            if number % 5 == 0:
                control.cancel()
            try:
                outcomes.append(worker.run(job(number), 0.001 * (number % 6) + 0.0005, control=control) == number)
            except expected:
                outcomes.append(True)
        return True

    # when
    with ThreadPoolExecutor(16) as pool:
        askers = [pool.submit(ask, client_id) for client_id in range(16)]
        time.sleep(0.1)
        while not all(client_id.done() for client_id in askers[:8]):
            time.sleep(0.01)
        assert worker.stop(PATIENCE)

        # then
        assert all(client_id.result(PATIENCE) for client_id in askers)
    assert len(outcomes) == 16 * 40
    assert all(outcomes)
    assert worker.waiting == 0
