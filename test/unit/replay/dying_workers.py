"""Workers that die by SIGKILL, as the out-of-memory killer ends them."""

import os
import signal
import time
from pathlib import Path

from delayed_vlm_ros.replay.job import Evaluator


def run_and_die_once(job):
    mark = Path(job.folder).with_suffix(".died")
    if not mark.exists():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Evaluator().run(job)


def run_unless_deadly(job):
    """Die if the job is called so, while another one is at work; that one ends with its pool, and succeeds later."""
    folder = Path(job.folder).parent
    working, died = folder / "working", folder / "died"
    if Path(job.folder).name == "deadly":
        while not working.exists():
            time.sleep(0.01)
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if not died.exists():
        working.touch()
        signal.pause()
    return {"error": ""}


class DyingActor(Evaluator):
    def run(self, job, *on_progress):
        del job, on_progress
        os.kill(os.getpid(), signal.SIGKILL)
