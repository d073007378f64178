"""``python -m lab``: the benchmarks and the training of this project's developers."""

import typer

from lab import cli_answers, cli_bench
from lab.training.train import train

app = typer.Typer(no_args_is_help=True, help="Benchmarks and training for developers of this project.")
cli_bench.app.command()(cli_answers.answers)
app.add_typer(cli_bench.app, name="bench")
app.command()(train)

if __name__ == "__main__":
    app(prog_name="python -m lab")
