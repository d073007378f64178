"""web_dashboard: the web page of a ``scene_memory`` node, in a process of its own.

It talks to that node by its ROS interface alone, so it may run on another computer.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from rclpy.node import Node

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.ros.parameters import declare, parameter, read
from delayed_vlm_ros.ros.process import run_node
from delayed_vlm_ros.web.access import TOKEN_VARIABLE, make_access
from delayed_vlm_ros.web.backends.ros import RosBackend
from delayed_vlm_ros.web.conversation import MAX_CHARACTERS, QUESTIONS_PER_MINUTE, Conversation

URL_PREFIX = "The page is at"
"""How the line begins that says where."""


@dataclass(frozen=True)
class WebDashboardParameters:
    """What can be set on the page."""

    address: str = parameter(
        "127.0.0.1",
        "address the page is bound to; any but this machine's own needs a token, which stands in the environment "
        f"variable {TOKEN_VARIABLE} or is made and printed",
    )
    port: int = parameter(8080, "port of the page; 0: any that is free", minimum=0, maximum=65535)
    max_question_characters: int = parameter(
        MAX_CHARACTERS, "longest question", unit="characters", minimum=1, maximum=100_000
    )
    questions_per_minute: int = parameter(
        QUESTIONS_PER_MINUTE,
        "most questions within any minute, of all who look at the page together",
        minimum=1,
        maximum=1000,
    )


class WebDashboard(Node):
    """Listens to the memory, and serves the page from a thread."""

    def __init__(self) -> None:
        super().__init__("web_dashboard")
        # NiceGUI takes a second or two: nobody else's import of this module should.
        with explained_imports():
            from delayed_vlm_ros.web.server import WebServer  # noqa: PLC0415

        declare(self, WebDashboardParameters)
        settings = read(self, WebDashboardParameters)
        access = make_access(settings.address, os.environ.get(TOKEN_VARIABLE, ""))
        self._scene = RosBackend(self)
        conversation = Conversation(
            self._scene,
            max_characters=settings.max_question_characters,
            questions_per_minute=settings.questions_per_minute,
        )
        self._server = WebServer(self._scene, conversation, access, settings.port)
        # Printed and not logged: the log is published, and the token is for those who can see this terminal.
        sys.stdout.write(f"{URL_PREFIX} {self._server.url}\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Close the page; called once, before the process ends."""
        self._server.close()
        self._scene.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped; gives the process's exit code."""
    return run_node(WebDashboard, arguments=arguments, exit_process=True)


if __name__ == "__main__":
    sys.exit(main())
