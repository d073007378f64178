"""What the web page costs the memory node: images lost, and how much longer an ask takes, with the page open.

    .venv/bin/python lab/bench/web_page.py [--json] [--turns 10] [--asks 8] [--rate 30]

A camera of 30 Hz, a ``scene_memory`` node and the page's node run over DDS in a domain of their own. Turns with a
browser that has the page open and turns without alternate in one run, each pair of turns in another order, so that
whatever else happens to this machine happens to both. The browser is a real one and would stand on another computer:
here it only gets what nobody else wants of the processors (SCHED_IDLE), and since it slows the others even so (caches,
memory), it works in the other turns as well, on a page of its own that takes as much of the processors. What the page's
node takes, it takes like any other.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rclpy
import typer
from numpy.typing import NDArray
from playwright.sync_api import Browser, sync_playwright
from rclpy.context import Context
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from delayed_vlm_ros.images.encoding import encode_live_jpeg
from delayed_vlm_ros.resources import config_file
from delayed_vlm_ros.ros.client import SceneMemoryClient, scene_memory_client
from delayed_vlm_ros.ros.image_publisher import image_message
from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import NodeGroup
from delayed_vlm_ros.scenes import Scene, render

_QUESTION = "What is there?"
_PAUSE_SEC = 1.0  # between two asks: a pair of frames comes in it, so that each has as much to do
_SETTLE_SEC = 5.0  # the page's node lets go of the camera when nobody has looked for some seconds
_IMAGES = 4
_STAMP_AT = 4  # bytes, in a serialised message that begins with a header
_DRAWS = 10_000
_TICKS = os.sysconf("SC_CLK_TCK")


# What the browser shows while the page is closed: images that change so often that it takes as much of a processor.
_OTHER_PAGE = """<body><img id="live" width="960"><div id="strip"></div><script>
const images = %s, strip = document.getElementById("strip");
for (let n = 0; n < 20; n++) strip.appendChild(new Image(160));
let count = 0;
setInterval(() => document.getElementById("live").src = images[++count %% images.length], 55);
setInterval(() => [...strip.children].forEach((one, n) => one.src = images[(count + n) %% images.length]), 110);
</script></body>"""


def _stat(pid: int | str) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` behind the name, the state first."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _processor_sec(pid: int | str) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True)
class _IdleBrowser:
    browser: Browser
    group: str  # of its processes

    def processor_sec(self) -> float:
        """Of all its processes that are alive."""
        total = 0.0
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if process.name.isdigit() and _stat(process.name)[2] == self.group:
                    total += _processor_sec(process.name)
        return total


@contextmanager
def _idle_browser() -> Iterator[_IdleBrowser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("there is no Chromium here: sudo apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        idle = Path(folder) / "chromium"
        pid = Path(folder) / "pid"
        idle.write_text(f'#!/bin/sh\necho $$ > "{pid}"\nexec chrt --idle 0 "{chromium}" "$@"\n', encoding="utf-8")
        idle.chmod(0o755)
        browser = driver.chromium.launch(executable_path=idle, args=["--no-sandbox", "--disable-gpu"])
        yield _IdleBrowser(browser, group=_stat(pid.read_text(encoding="ascii").strip())[2])
        browser.close()


def _link(group: NodeGroup, client: SceneMemoryClient) -> str:
    def said() -> Any:
        group.check()
        return re.search(r"The page is at (\S+)", group.log("web_dashboard"))

    if not client.wait_until(lambda: said() is not None, 120.0):
        sys.exit("the page did not come up: this machine is too busy")
    return str(said()[1])


def _wait_until_ready(group: NodeGroup, client: SceneMemoryClient, frames: int) -> None:
    def ready() -> bool:
        group.check()
        told = client.statistics
        return told is not None and told.model_state == "ready" and told.total_frames_added >= frames

    if not client.wait_until(ready, 300.0):
        sys.exit("the memory did not fill: this machine is too busy")


class _Camera:
    """Publishes images from a thread, and counts them. It can pause: then all that it has published has arrived."""

    def __init__(self, domain: int, rate: float, height: int, width: int) -> None:
        self.published = 0
        self._rate = rate
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("fast_camera", context=self._context)
        quality = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = self._node.create_publisher(Image, "image", quality)
        images = (render(Scene.from_seed(3), number * 0.5, height, width) for number in range(_IMAGES))
        self.images = list(images)
        self._messages = [bytearray(serialize_message(image_message(image))) for image in self.images]
        self._running = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended:
            self._running.wait()
            message = self._messages[self.published % _IMAGES]
            struct.pack_into("<iI", message, _STAMP_AT, *divmod(time.time_ns(), 10**9))
            # A starved machine's DDS refuses one now and then, which is then not on its way.
            with suppress(rclpy_implementation.RCLError):
                self._publisher.publish(bytes(message))
                self.published += 1
            due = max(due + 1.0 / self._rate, time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))

    def go_on(self) -> None:
        self._running.set()

    def pause(self) -> None:
        self._running.clear()

    def close(self) -> None:
        self._ended = True
        self._running.set()
        self._thread.join()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)


class _Turns:
    """Runs turns and keeps what they took."""

    def __init__(self, group: NodeGroup, client: SceneMemoryClient, camera: _Camera, asks: int) -> None:
        self._group = group
        self._client = client
        self._camera = camera
        self._asks = asks
        self.latencies: dict[str, list[list[float]]] = {"open": [], "closed": []}
        self.lost = dict.fromkeys(self.latencies, 0)
        self.page_share: dict[str, list[float]] = {"open": [], "closed": []}
        self.browser_share: dict[str, list[float]] = {"open": [], "closed": []}

    def run(self, kind: str, browser: _IdleBrowser) -> None:
        pid = self._group.pid("web_dashboard")
        published, received = self._camera.published, self._received()
        self._camera.go_on()
        page_sec, browser_sec, began = _processor_sec(pid), browser.processor_sec(), time.monotonic()
        took = [self._ask() for _ in range(self._asks)]
        passed_sec = time.monotonic() - began
        self.page_share[kind].append((_processor_sec(pid) - page_sec) / passed_sec)
        self.browser_share[kind].append((browser.processor_sec() - browser_sec) / passed_sec)
        self._camera.pause()
        self.latencies[kind].append(took)
        self.lost[kind] += self._camera.published - published - (self._received() - received)

    def _ask(self) -> float:
        self._rest(_PAUSE_SEC)
        answer = self._client.ask(_QUESTION, timeout_sec=60.0)
        if not answer.success:
            sys.exit(f"an ask failed: {answer.error_msg}")
        return float(answer.metrics.total_latency)

    def _received(self) -> int:
        """Images that the memory has received, once all have arrived."""
        self._rest(2.5)  # reports come once a second
        return int(self._client.statistics.images_received)

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._client.wait_until(lambda: time.monotonic() > end, seconds + 1.0)


def _growth(turns: _Turns, generator: np.random.Generator) -> dict[str, float]:
    """By how many per cent an ask takes longer: the median over pairs of turns, with its 95 % bootstrap interval."""
    medians = {kind: np.array([np.median(took) for took in found]) for kind, found in turns.latencies.items()}
    ratios = medians["open"] / medians["closed"]
    drawn = np.median(generator.choice(ratios, (_DRAWS, len(ratios))), axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    values = {"median": np.median(ratios), "low": low, "high": high}
    return {name: round(100 * (float(value) - 1), 2) for name, value in values.items()}


def main(
    turns: Annotated[int, typer.Option(help="Pairs of turns, one with the page open and one without.", min=2)] = 10,
    asks: Annotated[int, typer.Option(help="Asks in a turn.", min=1)] = 8,
    rate: Annotated[float, typer.Option(help="Images a second.")] = 30.0,
    height: Annotated[int, typer.Option(help="Rows.")] = 480,
    width: Annotated[int, typer.Option(help="Columns.")] = 640,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure asks and images with the page open and closed."""
    environment = isolated_environment()
    os.environ.update(environment)
    generator = np.random.default_rng(0)
    with NodeGroup(environment) as group, _idle_browser() as browser, scene_memory_client(environment) as client:
        group.start("scene_memory", params_file=config_file("scene_memory.yaml"), parameters={"model.name": "demo"})
        group.start("web_dashboard", params_file=config_file("web_dashboard.yaml"), parameters={"port": 0})
        camera = _Camera(int(environment["ROS_DOMAIN_ID"]), rate, height, width)
        try:
            camera.go_on()
            _wait_until_ready(group, client, frames=60)
            link = _link(group, client)
            camera.pause()
            found = _Turns(group, client, camera, asks)
            other_page = _OTHER_PAGE % json.dumps([_data_url(image) for image in camera.images])
            shown = {"open": link, "closed": other_page}
            for _ in range(turns):
                for kind in generator.permutation(["open", "closed"]):
                    _turn(found, browser, shown, str(kind))
            result = {
                "shape": {
                    "rate": rate,
                    "height": height,
                    "width": width,
                    "turns": turns,
                    "asks": asks,
                    "processors": os.cpu_count(),
                },
                "images_lost": found.lost,
                "ask_growth_percent": _growth(found, generator),
                "median_ask_sec": {kind: round(float(np.median(took)), 4) for kind, took in found.latencies.items()},
                "page_processor_share": _means(found.page_share),
                "browser_processor_share": _means(found.browser_share),
            }
        finally:
            camera.close()
    print(json.dumps(result, indent=2) if as_json else "\n".join(f"{key}: {value}" for key, value in result.items()))


def _data_url(image: NDArray[np.uint8]) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encode_live_jpeg(image)).decode()}"


def _means(shares: dict[str, list[float]]) -> dict[str, float]:
    return {kind: round(float(np.mean(share)), 3) for kind, share in shares.items()}


def _turn(turns: _Turns, browser: _IdleBrowser, shown: dict[str, str], kind: str) -> None:
    page = browser.browser.new_page(viewport={"width": 1440, "height": 900})
    if kind == "closed":
        page.set_content(shown[kind])
        time.sleep(_SETTLE_SEC)
    else:
        page.goto(shown[kind])
        page.locator(".strip-stream .moment").first.wait_for()
        page.locator(".live img").wait_for(state="attached")
    turns.run(kind, browser)
    page.close()


if __name__ == "__main__":
    typer.run(main)
