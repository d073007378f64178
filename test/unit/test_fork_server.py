"""Programs forked by the tests' server behave as started ones."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap

import pytest
from fork_server import ROOT, ForkServer
from waiting import PATIENCE_SEC, wait_until


@pytest.fixture(scope="module")
def server():
    made = ForkServer("json")
    yield made
    made.close()


@pytest.fixture
def program(tmp_path):
    """Return a function that writes a program and returns its command."""

    def write(source):
        file = tmp_path / "program.py"
        file.write_text(textwrap.dedent(source), encoding="utf-8")
        return [str(file)]

    return write


class Forked:
    """A forked program and its output."""

    def __init__(self, server, command, environment=None, cwd=ROOT):
        self._output = tempfile.TemporaryFile("a+")  # noqa: SIM115  closed with this object
        self.process = server.start(command, {**os.environ, **(environment or {})}, self._output, self._output, cwd)

    @property
    def output(self):
        self._output.seek(0)
        return self._output.read()

    def end(self):
        """Wait for the end; return exit code and output."""
        return self.process.wait(PATIENCE_SEC), self.output


def started(command):
    done = subprocess.run(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "source",
    [
        "print('done')",
        "import sys; sys.stderr.write('failed'); sys.exit(3)",
        "import sys; sys.exit('reason')",
        "import os; os._exit(75)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import atexit, threading; atexit.register(print, 'bye'); threading.Thread(target=print, args=['end']).start()",
        "import sys; print(__name__, sys.argv, sys.path[0])",
    ],
)
def test_exit_code_and_output_are_those_of_a_started_program(server, program, source):
    command = [*program(source), "--option", "value"]
    assert Forked(server, command).end() == started(command)


def test_uncaught_error_has_a_traceback_and_exit_code_1(server, program):
    code, output = Forked(server, program("raise ValueError('planted')")).end()
    assert code == 1
    assert output.splitlines()[-1] == "ValueError: planted"


def test_module_has_its_arguments_and_environment(server, tmp_path):
    command = ["-m", "timeit", "-n", "1", "-r", "1", "-s", "import os, sys", "print(os.environ['MINE'], sys.argv[1:3])"]
    code, output = Forked(server, command, {"MINE": "value"}).end()
    assert code == 0
    assert output.startswith("value ['-n', '1']\n")


def test_streams_are_separate_and_the_working_folder_is_set(server, program, tmp_path):
    command = program("import os, sys; print(os.getcwd()); sys.stderr.write('error')")
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        assert server.start(command, os.environ, stdout, stderr, tmp_path).wait(PATIENCE_SEC) == 0
        stdout.seek(0)
        stderr.seek(0)
        assert (stdout.read(), stderr.read()) == (f"{tmp_path}\n", "error")


def test_interrupt_reaches_the_program_and_others_run_on(server, program):
    command = program("""
        import time
        print("begun")
        time.sleep(1000)
    """)
    both = [Forked(server, command) for _ in range(2)]
    for one in both:
        wait_until(lambda one=one: "begun" in one.output, "the program")
    # when
    both[0].process.send_signal(signal.SIGINT)
    # then
    code, output = both[0].end()
    assert (code, output.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt")
    assert both[1].process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        both[1].process.wait(0.01)
    # when
    both[1].process.kill()
    # then
    assert both[1].end()[0] == both[1].process.poll() == -signal.SIGKILL
    both[1].process.kill()  # nothing is left


def test_program_is_not_started_after_the_server_has_ended(program):
    server = ForkServer()
    server.close()
    with pytest.raises(OSError, match="descriptor"):
        Forked(server, program("print()"))


def test_server_that_cannot_import_a_module_fails_the_start(program, capfd):
    server = ForkServer("no_such_module")
    with pytest.raises((RuntimeError, BrokenPipeError)):
        Forked(server, program("print()"))
    server.close()
    assert "no_such_module" in capfd.readouterr().err
