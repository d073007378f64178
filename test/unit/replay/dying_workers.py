"""Workers that are killed, as a machine without memory kills them."""

import os
import signal
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
    if Path(job.folder).name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return Evaluator().run(job)


class DyingActor(Evaluator):
    def run(self, job, *told):
        del job, told
        os.kill(os.getpid(), signal.SIGKILL)
