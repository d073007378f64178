"""web_dashboard: the web page of a ``scene_memory`` node, in its own process.

The node uses only the ROS interface of ``scene_memory``, so it may run on another computer.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.ros.log import LoggingNode
from delayed_vlm_ros.ros.parameters import declare, parameter, read
from delayed_vlm_ros.ros.process import run_node
from delayed_vlm_ros.web.access import TOKEN_VARIABLE, make_access
from delayed_vlm_ros.web.backends.ros import RosBackend
from delayed_vlm_ros.web.conversation import MAX_CHARACTERS, QUESTIONS_PER_MINUTE, Conversation

URL_PREFIX = "The page is at"
"""Start of the line on standard output that contains the URL of the page."""


@dataclass(frozen=True)
class WebDashboardParameters:
    """Parameters of the ``web_dashboard`` node."""

    address: str = parameter(
        "127.0.0.1",
        "address to serve the page at; every address except a loopback address requires a token, which is taken from "
        f"the environment variable {TOKEN_VARIABLE} or generated and printed",
    )
    port: int = parameter(8080, "port to serve the page at; 0 for any free port", minimum=0, maximum=65535)
    max_question_characters: int = parameter(
        MAX_CHARACTERS, "maximum length of a question", unit="characters", minimum=1, maximum=100_000
    )
    questions_per_minute: int = parameter(
        QUESTIONS_PER_MINUTE,
        "maximum number of questions in any minute, from all visitors together",
        minimum=1,
        maximum=1000,
    )


class WebDashboard(LoggingNode):
    """Receives the state of the memory and serves the page from a separate thread."""

    def __init__(self) -> None:
        super().__init__("web_dashboard")
        # NiceGUI takes up to two seconds to import, and some users of this module do not need it.
        with explained_imports():
            from delayed_vlm_ros.web.server import WebServer  # noqa: PLC0415

        declare(self, WebDashboardParameters)
        settings = read(self, WebDashboardParameters)
        access = make_access(settings.address, os.environ.get(TOKEN_VARIABLE, ""))
        self._backend = RosBackend(self)
        conversation = Conversation(
            self._backend,
            max_characters=settings.max_question_characters,
            questions_per_minute=settings.questions_per_minute,
        )
        self._server = WebServer(self._backend, conversation, access, settings.port)
        self._server.start()
        # Not logged: the ROS log is published, and the token is for the users of this terminal only.
        sys.stdout.write(f"{URL_PREFIX} {self._server.url}\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Close the page; called once, before the process ends."""
        self._server.close()
        self._backend.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped; return the exit code of the process."""
    return run_node(WebDashboard, arguments=arguments, exit_process=True)


if __name__ == "__main__":
    sys.exit(main())
