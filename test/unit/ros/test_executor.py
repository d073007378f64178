"""The executor of nodes whose handlers wait: few threads, prompt resumption, errors reported."""

import threading
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.task import Future
from rclpy.waitable import NumberOfEntities, Waitable
from waiting import PATIENCE_SEC, wait_until

from delayed_vlm_ros.ros.executor import HandlerExecutor, make_executor


@pytest.fixture
def executor():
    """A spinning executor with two threads; its attribute ``errors`` has what ``spin_once`` raised."""
    context = Context()
    rclpy.init(context=context)
    made = HandlerExecutor(2, context=context)
    made.errors = []
    ending = threading.Event()

    def spin():
        while not ending.is_set():
            try:
                made.spin_once(0.5)
            except BaseException as error:  # noqa: BLE001  the test decides
                made.errors.append(error)

    thread = threading.Thread(target=spin)
    thread.start()
    yield made
    ending.set()
    made.wake()
    thread.join()
    made.shutdown()
    rclpy.try_shutdown(context=context)


def test_waiting_handlers_hold_no_thread(executor):
    # given
    gate, ended = Future(), []

    async def wait(number):
        await gate
        ended.append(number)

    tasks = [executor.create_task(wait, number) for number in range(50)]
    wait_until(lambda: executor.unfinished == 50, "all handlers to wait")
    # when another callback comes
    other = executor.create_task(lambda: "done")
    wait_until(other.done, "the other callback")
    # then
    assert not ended
    gate.set_result(None)
    executor.wake()
    wait_until(lambda: all(task.done() for task in tasks), "all handlers")
    assert sorted(ended) == list(range(50))
    wait_until(lambda: executor.unfinished == 0, "no handler")


def test_finished_future_resumes_its_handler_after_wake(executor):
    async def wait():
        await gate
        return time.monotonic()

    for _ in range(20):
        gate = Future()
        task = executor.create_task(wait)
        wait_until(lambda: executor.unfinished == 1, "the handler to wait")
        # when
        began = time.monotonic()
        gate.set_result(None)
        executor.wake()
        # then not only when the executor looks again after a period
        wait_until(task.done, "the handler")
        wait_until(lambda: executor.unfinished == 0, "no handler")
        if task.result() - began < 0.05:
            return
    pytest.fail("handlers are resumed late every time")


def test_resume_continues_one_handler(executor):
    # given
    gate, steps = Future(), {0: [], 1: []}
    handlers = {}

    class Gate:
        def __init__(self, number):
            self.number = number

        def __await__(self):
            while not gate.done():
                steps[self.number].append(time.monotonic())
                yield

    async def wait(number):
        handlers[number] = executor.running_handler
        await Gate(number)

    tasks = [executor.create_task(wait, number) for number in range(2)]
    wait_until(lambda: all(steps.values()), "both handlers to wait")
    assert executor.running_handler is None
    # when
    for _ in range(20):
        before = len(steps[0])
        executor.resume(handlers[0])
        wait_until(lambda before=before: len(steps[0]) > before, "a step of the resumed handler")
    # then only the period has resumed the other one
    assert len(steps[1]) < len(steps[0])
    gate.set_result(None)
    executor.wake()
    wait_until(lambda: all(task.done() for task in tasks), "both handlers")
    executor.resume(handlers[0])  # too late
    assert executor.unfinished == 0


def test_future_finished_while_its_handler_suspends_is_not_missed(executor):
    async def wait(gate):
        await gate

    for _ in range(300):
        gate = Future()
        task = executor.create_task(wait, gate)
        gate.set_result(None)
        executor.wake()
        wait_until(task.done, "the handler")


def test_waiting_handler_takes_no_step_without_wake(executor):
    steps = []

    class Gate:
        opened = False

        def __await__(self):
            while not self.opened:
                steps.append(time.monotonic())
                yield

    gate = Gate()

    async def wait():
        await gate

    task = executor.create_task(wait)
    wait_until(lambda: len(steps) == 1, "the handler to wait")
    # when a hundred other callbacks come
    for _ in range(100):
        wait_until(executor.create_task(lambda: None).done, "a callback")
    # then only the period resumes it
    assert len(steps) <= 2 + (time.monotonic() - steps[0]) / 0.1
    gate.opened = True
    executor.wake()
    wait_until(task.done, "the handler")


@pytest.mark.parametrize("error", [ZeroDivisionError("planted"), SystemExit("planted")])
def test_error_of_a_callback_is_raised_by_spin_once(executor, error):
    def fail():
        raise error

    executor.create_task(fail)
    wait_until(lambda: executor.errors, "the error")
    assert executor.errors == [error]
    wait_until(executor.create_task(lambda: None).done, "a callback after it")
    assert executor.unfinished == 0


def test_finish_handlers_runs_those_that_can_end():
    context = Context()
    rclpy.init(context=context)
    executor = HandlerExecutor(2, context=context)
    gate, ended = Future(), []

    async def wait(future, name):
        await future
        ended.append(name)

    executor.create_task(wait, gate, "first")
    while executor.unfinished < 1:
        executor.spin_once(0.1)
    # when
    gate.set_result(None)
    executor.wake()
    assert executor.finish_handlers(PATIENCE_SEC)
    # then
    assert ended == ["first"]
    executor.create_task(wait, Future(), "never")
    while executor.unfinished < 1:
        executor.spin_once(0.1)
    assert not executor.finish_handlers(0.2)
    executor.shutdown()
    rclpy.try_shutdown(context=context)


@pytest.mark.parametrize(
    ("threads", "resumes_handlers", "expected"),
    [(1, False, SingleThreadedExecutor), (4, False, HandlerExecutor), (4, True, MultiThreadedExecutor)],
)
def test_executor_fits_the_rclpy_that_is_installed(monkeypatch, threads, resumes_handlers, expected):
    if resumes_handlers:
        monkeypatch.setattr(Executor, "_call_task_in_next_spin", None, raising=False)
    elif hasattr(Executor, "_call_task_in_next_spin"):
        monkeypatch.delattr(Executor, "_call_task_in_next_spin")
    context = Context()
    rclpy.init(context=context)
    made = make_executor(threads, context=context)
    assert type(made) is expected
    made.shutdown()
    rclpy.try_shutdown(context=context)


class DestroyedWaitable(Waitable):
    """A QoS event of a subscription that was destroyed after the executor had collected it."""

    def __init__(self):
        super().__init__(ReentrantCallbackGroup())
        self.was_added = False

    def __enter__(self):
        raise InvalidHandle("planted by the test")

    def __exit__(self, *_):
        raise AssertionError

    def add_to_wait_set(self, _):
        self.was_added = True
        raise InvalidHandle("planted by the test")

    def get_num_entities(self):
        return NumberOfEntities()

    def is_ready(self, _):
        return False

    def take_data(self):
        return None

    async def execute(self, _):
        raise AssertionError


def test_entity_that_another_thread_destroys_is_no_error(executor):
    # given
    node = rclpy.create_node("destroying", context=executor._context)
    destroyed = DestroyedWaitable()
    node.add_waitable(destroyed)
    ticks = []
    node.create_timer(0.01, lambda: ticks.append(1))

    # when
    executor.add_node(node)
    wait_until(lambda: destroyed.was_added, "the executor")

    # then the executor continues without it
    node.remove_waitable(destroyed)
    wait_until(lambda: ticks, "a callback")
    assert executor.errors == []
