"""``delayed-vlm server-check``: find out what a model server can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.inference.remote.settings import RemoteSettings


def server_check(
    url: Annotated[
        str,
        typer.Argument(help="Server and model, such as openai:http://server:8000/v1#Qwen/Qwen3-VL-8B-Instruct."),
    ],
    api_key_env: options.ApiKeyEnv = "",
    frame_multiple: options.FrameMultiple = RemoteSettings.frame_multiple,
    as_json: options.Json = False,
) -> None:
    """Find out what a model server can do: encoding of frames, times, watches, what to set. Sends about ten requests.

    Run it on the robot, whose network counts. The exit code is 1 if the server cannot be used.
    """
    # Keep --help fast.
    from delayed_vlm_ros.doctor.model_server import examine  # noqa: PLC0415
    from delayed_vlm_ros.inference.remote.model import remote_model  # noqa: PLC0415

    model = remote_model(url, RemoteSettings(api_key_env=api_key_env, frame_multiple=frame_multiple))
    with terminal.console(stderr=True).status(f"asking {model.address.host}"):
        found = examine(model)
    if as_json:
        terminal.write_json(found.as_json())
    else:
        output.show_findings(found.findings)
        if found.parameters:
            terminal.write(f"\nFor the parameter file:\n\n{_parameter_text(found.parameters)}")
    if not found.is_usable:
        raise typer.Exit(1)


def _parameter_text(parameters: Mapping[str, Mapping[str, Any]]) -> str:
    import yaml  # noqa: PLC0415  keep --help fast

    content = {"/**": {"ros__parameters": {name: dict(values) for name, values in parameters.items()}}}
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True)).rstrip()
