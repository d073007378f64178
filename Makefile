# The front door. `make demo` and `make test` set up what they need.
.PHONY: help setup demo test test-exact fuzz soak lint format bench train clean

help:            ## this list
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup:           ## make .venv with everything in it (quick when nothing changed)
	@tools/setup

demo: setup      ## camera, memory and questions about a story, through ROS 2
	@.venv/bin/delayed-vlm demo

test: setup      ## all tests
	@.venv/bin/python -m pytest

test-exact: setup ## that caches change nothing: a thousand random histories (half an hour)
	@EXACT_HISTORIES=1000 .venv/bin/python -m pytest test/unit/inference/test_exactness.py

fuzz: setup      ## images, files of key frames and requests of any kind: more than 100,000 cases (some minutes)
	@FUZZ_CASES=$${FUZZ_CASES:-120000} .venv/bin/python -m pytest test/fuzz --timeout 7200

soak: setup      ## ten minutes of a fast camera with asks back to back, then an accelerated day; see docs/reliability.md
	@.venv/bin/python lab/bench/load.py
	@.venv/bin/python lab/bench/soak.py

lint: setup      ## style, types and the direction of imports
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

format: setup    ## put the code into shape
	@.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

bench: setup     ## timings of this machine; see lab/bench/README.md
	@.venv/bin/delayed-vlm bench ask

train: setup     ## train the embedded model (hours; goes on where it was)
	@.venv/bin/python -m lab train --resume

clean:           ## remove everything that setup and builds made
	rm -rf .venv build install log *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
