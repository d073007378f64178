"""Cost of the web page to the memory node: images lost, and added latency of questions, while the page is open.

A camera of 30 Hz, a ``scene_memory`` node and the page's node run over DDS in a domain of their own. Turns with the
page open and turns with it closed alternate in one run, each pair of turns in random order, so that other load on the
machine affects both alike.

The browser is a real one. In use it runs on another computer, so here it gets only the processor time that nobody else
wants (SCHED_IDLE). It still slows the others, through caches and memory bandwidth. In the turns with the page closed it
therefore shows a page of its own that takes as much processor time. The page's node is scheduled like any other node.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from playwright.sync_api import Browser, sync_playwright
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from delayed_vlm_ros.images.encoding import encode_live_jpeg
from delayed_vlm_ros.resources import config_file
from delayed_vlm_ros.ros.client import SceneMemoryClient
from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import NodeGroup
from delayed_vlm_ros.web.dashboard_node import URL_PREFIX
from lab.bench import fast_camera
from lab.bench.process_stats import processor_sec, stat_fields

_QUESTION = "What is there?"
_PAUSE_SEC = 1.0  # before each question: one pair of frames arrives in it, so that every question has the same work
_SETTLING_SEC = 5.0  # the page's node unsubscribes from the camera some seconds after the last viewer has left
_REPORT_SEC = 2.5  # statistics are published once per second
_IMAGES = 4
_RESAMPLES = 10_000
_OPEN, _CLOSED = "open", "closed"

# Shown while the page is closed: images that change so often that the browser takes as much processor time.
_OTHER_PAGE = """<body><img id="live" width="960"><div id="strip"></div><script>
const images = %s, strip = document.getElementById("strip");
for (let n = 0; n < 20; n++) strip.appendChild(new Image(160));
let count = 0;
setInterval(() => document.getElementById("live").src = images[++count %% images.length], 55);
setInterval(() => [...strip.children].forEach((one, n) => one.src = images[(count + n) %% images.length]), 110);
</script></body>"""


def measure(turns: int, questions: int, rate: float, height: int, width: int) -> dict[str, Any]:
    """Ask questions with the page open and with the page closed.

    Args:
        turns: Number of pairs of turns, one with the page open and one with it closed.
        questions: Questions per turn.
        rate: Rate of the camera in Hz.
        height: Image height in pixels.
        width: Image width in pixels.

    Returns:
        The result that ``bench web-page --json`` prints.
    """
    environment = isolated_environment()
    os.environ.update(environment)
    random = np.random.default_rng(0)
    with (
        NodeGroup(environment) as group,
        _idle_browser() as browser,
        SceneMemoryClient.connect(environment=environment) as client,
    ):
        group.start("scene_memory", params_file=config_file("scene_memory.yaml"), parameters={"model.name": "demo"})
        group.start("web_dashboard", params_file=config_file("web_dashboard.yaml"), parameters={"port": 0})
        camera = _Camera(int(environment["ROS_DOMAIN_ID"]), rate, height, width)
        camera.start()
        try:
            camera.resume()
            _wait_until_ready(group, client, frames=60)
            url = _wait_for_url(group, client)
            camera.pause()
            done = _Turns(group, client, camera, questions)
            for _ in range(turns):
                for kind in random.permutation([_OPEN, _CLOSED]):
                    _run_turn(done, browser, str(kind), url, camera.images)
        finally:
            camera.close()
    shape = {"rate": rate, "height": height, "width": width, "turns": turns, "questions": questions}
    return {
        "shape": {**shape, "processors": os.cpu_count()},
        "images_lost": done.lost,
        "latency_increase_percent": _increase(done.latencies, random),
        "median_latency_sec": {kind: round(float(np.median(took)), 4) for kind, took in done.latencies.items()},
        "page_processor_share": _means(done.page_share),
        "browser_processor_share": _means(done.browser_share),
    }


@dataclass(frozen=True)
class _IdleBrowser:
    browser: Browser
    process_group: str

    def processor_sec(self) -> float:
        """Return the processor time of all live processes of the browser, in seconds."""
        total = 0.0
        for process in Path("/proc").iterdir():
            with suppress(OSError):  # the process has ended meanwhile
                if process.name.isdigit() and stat_fields(process.name)[2] == self.process_group:
                    total += processor_sec(process.name)
        return total


@contextmanager
def _idle_browser() -> Iterator[_IdleBrowser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("Chromium is not installed: sudo apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        idle = Path(folder) / "chromium"
        pid = Path(folder) / "pid"
        idle.write_text(f'#!/bin/sh\necho $$ > "{pid}"\nexec chrt --idle 0 "{chromium}" "$@"\n', encoding="utf-8")
        idle.chmod(0o755)
        browser = driver.chromium.launch(executable_path=idle, args=["--no-sandbox", "--disable-gpu"])
        yield _IdleBrowser(browser, process_group=stat_fields(pid.read_text(encoding="ascii").strip())[2])
        browser.close()


def _wait_for_url(group: NodeGroup, client: SceneMemoryClient) -> str:
    url = ""

    def found() -> bool:
        nonlocal url
        group.check()
        line = re.search(rf"{URL_PREFIX} (\S+)", group.log("web_dashboard"))
        url = line[1] if line else ""
        return bool(url)

    if not client.wait_until(found, 120.0):
        sys.exit("the page did not start within 120 s: the machine is too busy")
    return url


def _wait_until_ready(group: NodeGroup, client: SceneMemoryClient, frames: int) -> None:
    def ready() -> bool:
        group.check()
        memory, node = client.statistics, client.node_statistics
        return bool(node and node.model_state == "ready" and memory and memory.total_frames_added >= frames)

    if not client.wait_until(ready, 300.0):
        sys.exit("the memory did not fill within 300 s: the machine is too busy")


class _Camera:
    """Publishes images from a thread and counts them; while it is paused, no image is in transit."""

    def __init__(self, domain: int, rate: float, height: int, width: int) -> None:
        self.published = 0
        self.images = fast_camera.render_images(_IMAGES, height, width)
        self._rate = rate
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("fast_camera", context=self._context)
        quality = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = self._node.create_publisher(Image, "image", quality)
        self._messages = fast_camera.serialize_images(self.images)
        self._running = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        for _ in fast_camera.ticks(self._rate):
            self._running.wait()
            if self._closed:
                return
            message = self._messages[self.published % _IMAGES]
            fast_camera.set_stamp(message, time.time_ns())
            # On an overloaded machine DDS may refuse an image; that one is not published and not counted.
            with suppress(fast_camera.RCLError):
                self._publisher.publish(bytes(message))
                self.published += 1

    def start(self) -> None:
        self._thread.start()

    def resume(self) -> None:
        self._running.set()

    def pause(self) -> None:
        self._running.clear()

    def close(self) -> None:
        self._closed = True
        self._running.set()
        self._thread.join()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)


class _Turns:
    """Runs turns and records latencies, lost images and processor shares of each kind."""

    def __init__(self, group: NodeGroup, client: SceneMemoryClient, camera: _Camera, questions: int) -> None:
        self._group = group
        self._client = client
        self._camera = camera
        self._questions = questions
        self.latencies: dict[str, list[list[float]]] = {_OPEN: [], _CLOSED: []}
        self.lost = dict.fromkeys(self.latencies, 0)
        self.page_share: dict[str, list[float]] = {_OPEN: [], _CLOSED: []}
        self.browser_share: dict[str, list[float]] = {_OPEN: [], _CLOSED: []}

    def run(self, kind: str, browser: _IdleBrowser) -> None:
        pid = self._group.pid("web_dashboard")
        published, received = self._camera.published, self._received()
        self._camera.resume()
        page_sec, browser_sec, began = processor_sec(pid), browser.processor_sec(), time.monotonic()
        latencies = [self._ask() for _ in range(self._questions)]
        passed_sec = time.monotonic() - began
        self.page_share[kind].append((processor_sec(pid) - page_sec) / passed_sec)
        self.browser_share[kind].append((browser.processor_sec() - browser_sec) / passed_sec)
        self._camera.pause()
        self.latencies[kind].append(latencies)
        self.lost[kind] += self._camera.published - published - (self._received() - received)

    def _ask(self) -> float:
        self._rest(_PAUSE_SEC)
        answer = self._client.ask(_QUESTION, timeout_sec=60.0)
        if not answer.success:
            sys.exit(f"a question failed: {answer.error_msg}")
        return float(answer.metrics.total_latency)

    def _received(self) -> int:
        """Return the number of images that the memory has received, after all have arrived."""
        self._rest(_REPORT_SEC)
        statistics: Any = self._client.statistics
        return int(statistics.images_received)

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._client.wait_until(lambda: time.monotonic() > end, seconds + 1.0)


def _run_turn(turns: _Turns, browser: _IdleBrowser, kind: str, url: str, images: list[NDArray[np.uint8]]) -> None:
    page = browser.browser.new_page(viewport={"width": 1440, "height": 900})
    if kind == _CLOSED:
        page.set_content(_OTHER_PAGE % json.dumps([_data_url(image) for image in images]))
        time.sleep(_SETTLING_SEC)
    else:
        page.goto(url)
        page.locator(".strip-stream .frame-card").first.wait_for()
        page.locator(".live img").wait_for(state="attached")
    turns.run(kind, browser)
    page.close()


def _data_url(image: NDArray[np.uint8]) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encode_live_jpeg(image)).decode()}"


def _increase(latencies: dict[str, list[list[float]]], random: np.random.Generator) -> dict[str, float]:
    """Return by how many per cent questions take longer: the median over pairs of turns, and its 95 % interval."""
    medians = {kind: np.array([np.median(took) for took in turns]) for kind, turns in latencies.items()}
    ratios = medians[_OPEN] / medians[_CLOSED]
    resampled = np.median(random.choice(ratios, (_RESAMPLES, len(ratios))), axis=1)
    low, high = np.percentile(resampled, (2.5, 97.5))
    values = {"median": np.median(ratios), "low": low, "high": high}
    return {name: round(100 * (float(value) - 1), 2) for name, value in values.items()}


def _means(shares: dict[str, list[float]]) -> dict[str, float]:
    return {kind: round(float(np.mean(share)), 3) for kind, share in shares.items()}
