"""``delayed-vlm doctor``: find out why something does not work, and write a file for support."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.errors import BadRequestError


def doctor(
    namespace: options.Namespace = "/",
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Also write a zip file for a support case: the checks, versions, parameters, diagnostics and the last "
            "log files, without secrets. An existing file is not overwritten.",
            show_default=False,
        ),
    ] = None,
    with_images: Annotated[
        bool, typer.Option("--with-images", help="With --bundle: add the images that the node keeps.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(help="Time limit of each check, in s.", min=1, show_default="12, more on a busy machine"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check Python, GPU, ROS, clocks, image topics, node, model, disk and page, each with its remedy, in about 10 s.

    Run it on the robot, in the shell that starts the node: it also works without ROS, torch, GPU or a running node.
    The exit code is 1 if any line is an ERROR. Nothing is downloaded or changed.
    """
    # Keep --help fast.
    from delayed_vlm_ros.doctor.bundle import diagnosis_json, write_bundle  # noqa: PLC0415
    from delayed_vlm_ros.doctor.diagnosis import diagnose  # noqa: PLC0415

    if with_images and bundle is None:
        raise BadRequestError("--with-images requires --bundle: name a file, or omit --with-images")
    with _opened(bundle) as file:
        with terminal.console(stderr=True).status("checking, about 10 s"):
            found = diagnose(namespace, timeout)
        if as_json:
            terminal.write_json(diagnosis_json(found))
        else:
            output.show_findings(found.findings)
        if file is not None:
            names = write_bundle(file, found, namespace=namespace, with_images=with_images)
            note = f"wrote {bundle}: {', '.join(names)}. Read it before you send it."
            terminal.console(stderr=True).print(terminal.literal(note), highlight=False, soft_wrap=True)
    if found.has_error:
        raise typer.Exit(1)


@contextmanager
def _opened(bundle: Path | None) -> Iterator[IO[bytes] | None]:
    """Create the file before the checks, whose time would otherwise be lost."""
    if bundle is None:
        yield None
        return
    from delayed_vlm_ros.doctor.bundle import new_file  # noqa: PLC0415  keep --help fast

    with new_file(bundle) as file:
        yield file
