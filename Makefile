# Entry points. `make demo` and `make test` set up what they need.
.PHONY: help setup demo test test-fast test-jazzy test-slow test-exact fuzz soak lint format docs bench train clean

help:            ## list the targets
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup:           ## create .venv with everything in it (quick when nothing changed)
	@tools/setup

demo: setup      ## a synthetic camera, the memory and six questions, through ROS 2
	@.venv/bin/delayed-vlm demo

# Two workers; nodes of one file share a worker, and each worker has a ROS domain of its own.
# A crashed worker ends the tests: pytest-xdist waits for ever after it has replaced one.
# Compiled modules are kept, also where the environment forbids it: hundreds of processes import the package.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile --max-worker-restart 0
VENV = .venv

test: setup      ## all tests but the slow ones
	@$(PYTEST) -m "not slow"

test-fast: setup ## quick unit tests: no DDS, browser, model or fuzzing
	@$(PYTEST) -m "not slow and not ros and not browser and not fuzz and not heavy"

test-jazzy: VENV = .venv-jazzy
test-jazzy:      ## the node and DDS tests on ROS 2 Jazzy, in .venv-jazzy: six more GB on disk, not part of make test
	@tools/setup jazzy
	@$(PYTEST) -m "not slow" test/ros test/unit/ros

test-slow: setup ## the slow ones: training, many random histories of the caches
	@OMP_NUM_THREADS=1 EXACT_HISTORIES=$${EXACT_HISTORIES:-60} .venv/bin/python -m pytest -n 2 --dist load --timeout 900 \
		test/slow test/unit/inference/test_exactness.py

test-exact: setup ## caches change nothing: a thousand random histories for each model (half an hour)
	@EXACT_HISTORIES=1000 .venv/bin/python -m pytest test/unit/inference/test_exactness.py

fuzz: setup      ## generated images, key-frame files and requests: more than 100,000 cases (some minutes)
	@FUZZ_CASES=$${FUZZ_CASES:-120000} .venv/bin/python -m pytest test/fuzz --timeout 7200

soak: setup      ## ten minutes of a fast camera with continuous questions, then an accelerated day; see docs/reliability.md
	@.venv/bin/python -m lab bench load
	@.venv/bin/python -m lab bench soak

lint: setup      ## style, types and the direction of imports
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

format: setup    ## format the code and fix what can be fixed
	@.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

docs: setup      ## the documentation as a site in build/site; fails on a link without a target
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet
	@echo "open build/site/index.html; with search: python3 -m http.server --directory build/site"

bench: setup     ## what a question costs on this machine
	@.venv/bin/delayed-vlm bench ask

train: setup     ## train the embedded model (hours; resumes)
	@.venv/bin/python -m lab train --resume

clean:           ## remove everything that set-up and builds created
	rm -rf .venv .venv-jazzy build install log *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
