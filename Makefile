# Everything here makes the virtual environment it needs, from PyPI, on first use (see scripts/environment.sh).
# It takes the newest Python of the machine that fits, or the one you name:  make test PYTHON=3.11

PYTHON ?=
# Extra arguments of pytest:  make test ARGS="tests/taskq_django -k commit"
ARGS ?=
# Test processes that run at the same time.
JOBS ?= 2

export PYTHON
run_python = python=$$(sh scripts/environment.sh run) &&
lint_python = python=$$(sh scripts/environment.sh lint) &&
docs_python = python=$$(sh scripts/environment.sh docs) &&

.PHONY: help demo test processes topologies browser model docs soak test-all nightly mutants ci fuzz soak-mutants \
	bench bench-peers site screenshots format lint types clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: ## a Django site, a FastAPI app and a worker on a private Redis; one trace per request
	@$(run_python) exec "$$python" -m example_project.demo $(ARGS)

test: ## what each change runs (4 minutes on two cores); the suites below take real processes and real time
	@$(run_python) exec "$$python" -m pytest -n $(JOBS) --durations 10 $(ARGS)

processes: ## real processes that are killed, stopped, deployed and restarted
	@$(run_python) exec "$$python" -m pytest -n 4 tests/processes $(ARGS)

topologies: ## Sentinel, Cluster, TLS, replicas, users of Redis with few rights; every script on the other servers here
	@$(run_python) exec "$$python" -m pytest -n $(JOBS) tests/topologies tests/conformance --stores others $(ARGS)

browser: ## the admin and the dashboard in a real Chromium
	@$(run_python) exec "$$python" -m pytest -n $(JOBS) tests/browser $(ARGS)

docs: ## whether the documentation, the tutorials and the files of deploy/ are right
	@$(lint_python) exec "$$python" -m pytest -n $(JOBS) tests/docs $(ARGS)

test-all: test processes topologies browser model docs soak ## everything above, and the model and the soak

nightly: ## everything in full length (hours)
	@$(run_python) "$$python" -m pytest -n $(JOBS) -m "" --stores all tests $(ARGS)
	@$(run_python) "$$python" -m tests.mutants
	@$(run_python) "$$python" -m tests.soak.mutants
	@$(run_python) "$$python" -m tests.soak --profile long --minutes 30

ci: ## what CI checks without running taskq: format, lint, types, imports, security, generated code, the wheel
	@$(lint_python) exec "$$python" scripts/ci.py --jobs $(JOBS) $(ARGS)

fuzz: ## change what is in the corpora for a while; ARGS="--minutes 10"
	@$(run_python) exec "$$python" -m tests.model.fuzz $(ARGS)

soak: ## real processes under faults for three minutes; ARGS="--minutes 10 --seed 7 --profile long"
	@$(run_python) exec "$$python" -m tests.soak $(ARGS)

soak-mutants: ## deliberate errors in sixteen copies of the code (minutes): the soak must detect each
	@$(run_python) exec "$$python" -m tests.soak.mutants $(ARGS)

model: ## any order of operations beside a model:  make model ARGS="--model-runs 20000 --model-seed 7"
	@$(run_python) exec "$$python" -m pytest -n $(JOBS) tests/model $(ARGS)

mutants: ## break taskq in many small ways: the tests must notice each
	@$(run_python) exec "$$python" -m tests.mutants $(ARGS)

bench: ## measure speed (minutes); prints a table and writes JSON; ARGS="--aims" is what is aimed at
	@$(run_python) exec "$$python" -m benchmarks $(ARGS)

bench-peers: ## taskq beside other task queues, which get environments of their own from PyPI and npm (20 minutes)
	@$(run_python) exec "$$python" -m benchmarks --peers $(ARGS)

site: ## the site of docs/, its links checked, in build/site
	@$(docs_python) exec "$$python" -m scripts.docs $(ARGS)

screenshots: ## the pictures in docs/images, anew; needs a Chromium
	@$(run_python) exec "$$python" -m pytest -q tests/browser/admin/pictures.py tests/browser/dashboard/pictures.py tests/taskq_core/cli/terminal/pictures.py $(ARGS)

format: ## put code into form
	@$(lint_python) "$$python" -m ruff check --fix --quiet . ; "$$python" -m ruff format .

lint: ## style and import contract
	@$(lint_python) "$$python" scripts/ci.py --only format --only lint --only imports

types: ## static types
	@$(lint_python) "$$python" scripts/ci.py --only types

clean: ## delete environments and caches
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
