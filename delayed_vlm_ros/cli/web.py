"""``delayed-vlm web``: serve the page of a running ``scene_memory`` node, of a demo, or of a video without ROS."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Annotated, Any

import typer

from delayed_vlm_ros.cli import options, terminal
from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.inference.remote.address import is_remote
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.web.access import TOKEN_VARIABLE, make_access


def web(
    video: Annotated[
        str, typer.Option(help="Video file, camera device or stream (rtsp://…) to show without ROS.")
    ] = "",
    loop: Annotated[bool, typer.Option(help="With --video: play a file in a loop.")] = False,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Also start a synthetic camera and a memory node, in an unused ROS domain."),
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            help="With --video or --demo: folder of a checkpoint, name on the Hugging Face Hub, 'demo', or 'auto'; "
            "with --video also a model on a server (openai:http://server:8000/v1#NAME)."
        ),
    ] = "auto",
    api_key_env: options.ApiKeyEnv = "",
    frame_multiple: options.FrameMultiple = RemoteSettings.frame_multiple,
    namespace: options.Namespace = "/",
    address: Annotated[
        str,
        typer.Option(
            help="Address to serve at. Addresses other than loopback require a token, which is read from "
            f"{TOKEN_VARIABLE} or generated."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve at; 0 for any free port.", min=0, max=65535)] = 8080,
) -> None:
    """Serve a page to watch the memory and ask questions, until Ctrl-C."""
    if video and demo:
        raise BadRequestError("--video and --demo exclude each other: choose one")
    if loop and not video:
        raise BadRequestError("--loop requires --video: name a video file, or omit --loop")
    if (video or demo) and namespace != "/":
        raise BadRequestError("--namespace selects a running node: omit it with --video and --demo")
    if model != "auto" and not (video or demo):
        raise BadRequestError("--model requires --video or --demo: a running node has its own parameter model.name")
    if demo and is_remote(model):
        raise BadRequestError("--demo requires a model on this machine: use --video with a model on a server")
    if video:
        remote = RemoteSettings(api_key_env=api_key_env, frame_multiple=frame_multiple)
        _serve_video(video, loop=loop, model=model, remote=remote, address=address, port=port)
    elif demo:
        # Requires ROS.
        from delayed_vlm_ros.demo.web import run_web_demo  # noqa: PLC0415

        run_web_demo(model=model, address=address, port=port, on_ready=terminal.write)
    else:
        # Requires ROS.
        from delayed_vlm_ros.web.dashboard_node import main  # noqa: PLC0415

        settings: dict[str, Any] = {"address": address, "port": port}
        parameters = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
        sys.exit(main(["--ros-args", "-r", f"__ns:={namespace}", *parameters]))


def _serve_video(video: str, *, loop: bool, model: str, remote: RemoteSettings, address: str, port: int) -> None:
    # These imports load NiceGUI, which takes seconds.
    from delayed_vlm_ros.web.backends.in_process import InProcessBackend, InProcessSettings  # noqa: PLC0415
    from delayed_vlm_ros.web.conversation import MAX_CHARACTERS, QUESTIONS_PER_MINUTE, Conversation  # noqa: PLC0415
    from delayed_vlm_ros.web.server import WebServer  # noqa: PLC0415

    access = make_access(address, os.environ.get(TOKEN_VARIABLE, ""))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    backend = InProcessBackend(InProcessSettings(video, loop=loop, model=model, remote=remote))
    conversation = Conversation(backend, max_characters=MAX_CHARACTERS, questions_per_minute=QUESTIONS_PER_MINUTE)
    server = WebServer(backend, conversation, access, port)
    backend.start()
    try:
        server.start()
        terminal.write(f"The page is at {server.url}")
        stop.wait()
    finally:
        server.close()
        backend.close()
