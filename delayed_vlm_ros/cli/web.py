"""``delayed-vlm web``: the page of a running ``scene_memory`` node, of a demo, or of a video without ROS."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Annotated, Any

import typer

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.web.access import TOKEN_VARIABLE, make_access


def web(
    video: Annotated[str, typer.Option(help="Show this video file or camera device, without ROS.")] = "",
    loop: Annotated[bool, typer.Option(help="With --video: begin a file again at its end.")] = False,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Start a synthetic camera and a memory as well, in a ROS domain of their own."),
    ] = False,
    model: Annotated[
        str, typer.Option(help="With --video or --demo: a checkpoint's folder, a name on the hub, 'demo', or 'auto'.")
    ] = "auto",
    namespace: Annotated[str, typer.Option(help="Namespace of the scene_memory node, such as /robot1.")] = "/",
    address: Annotated[
        str,
        typer.Option(
            help=f"Address to serve at; any but this machine's own needs a token, of {TOKEN_VARIABLE} or a made one."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve at; 0: any that is free.", min=0, max=65535)] = 8080,
) -> None:
    """A page to watch the memory and talk to it. Ctrl-C ends it."""
    if video and demo:
        raise BadRequestError("both --video and --demo are given: choose one")
    if loop and not video:
        raise BadRequestError("--loop goes with --video: name a file to play again and again, or leave it out")
    if (video or demo) and namespace != "/":
        raise BadRequestError("--namespace is that of a running node: leave it out with --video and --demo")
    if model != "auto" and not (video or demo):
        raise BadRequestError(
            "--model goes with --video or --demo: a running node has its own, by its parameter model.name"
        )
    if video:
        _serve_video(video, loop=loop, model=model, address=address, port=port)
    elif demo:
        from delayed_vlm_ros.demo.web import run_web_demo  # noqa: PLC0415

        run_web_demo(model=model, address=address, port=port, say=_say)
    else:
        from delayed_vlm_ros.web.dashboard_node import main  # noqa: PLC0415

        settings: dict[str, Any] = {"address": address, "port": port}
        words = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
        sys.exit(main(["--ros-args", "-r", f"__ns:={namespace}", *words]))


def _serve_video(video: str, *, loop: bool, model: str, address: str, port: int) -> None:
    from delayed_vlm_ros.web.backends.in_process import InProcessBackend, InProcessSettings  # noqa: PLC0415
    from delayed_vlm_ros.web.conversation import MAX_CHARACTERS, QUESTIONS_PER_MINUTE, Conversation  # noqa: PLC0415
    from delayed_vlm_ros.web.server import WebServer  # noqa: PLC0415

    access = make_access(address, os.environ.get(TOKEN_VARIABLE, ""))
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    backend = InProcessBackend(InProcessSettings(video, loop=loop, model=model))
    conversation = Conversation(backend, max_characters=MAX_CHARACTERS, questions_per_minute=QUESTIONS_PER_MINUTE)
    server = WebServer(backend, conversation, access, port)
    backend.start()
    try:
        server.start()
        _say(f"The page is at {server.url}")
        ending.wait()
    finally:
        server.close()
        backend.close()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
