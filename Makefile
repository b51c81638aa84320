# Each target creates the virtual environment that it needs at the first use, from PyPI (see scripts/environment.sh).
# By default it uses the newest suitable Python of the machine. To choose another:  make test PYTHON=3.11

PYTHON ?=
# Extra arguments of pytest:  make test ARGS="tests/taskq_django -k commit"
ARGS ?=
# Test only one package:  make test PART=core   (or dashboard, django, exporter, fastapi, migrate, ...)
PART ?=
# Commit whose cost per task is compared with that of the current files:  make bench-check BASE=HEAD
BASE ?= HEAD^
# Test processes that run at the same time.
JOBS ?= 2

export PYTHON
run_python = python=$$(sh scripts/environment.sh run) &&
lint_python = python=$$(sh scripts/environment.sh lint) &&
docs_python = python=$$(sh scripts/environment.sh docs) &&

tests_of_part = $(if $(PART),$(or $(wildcard tests/taskq_$(PART)),$(error PART=$(PART): there is no folder tests/taskq_$(PART))) $(if $(filter core,$(PART)),tests/conformance))

.PHONY: help demo test without-add-ons processes topologies browser model docs soak test-all nightly mutants ci fuzz soak-mutants \
	bench bench-check bench-peers site screenshots format lint types clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: ## run the example: a Django site, a FastAPI app and a worker on a private Redis, one trace per request
	@$(run_python) exec "$$python" -m example_project.demo $(ARGS)

test: ## run the tests that every change must pass (4 minutes on two cores)
	@$(run_python) exec "$$python" -m pytest -n $(JOBS) --durations 10 $(tests_of_part) $(ARGS)

without-add-ons: ## test copies of the project from which add-ons were deleted (5 minutes); ARGS="--whole" runs all tests each time
	@$(run_python) exec "$$python" scripts/without_add_ons.py --jobs $(JOBS) $(ARGS)

processes: ## test with real processes that are killed, stopped, deployed and restarted (7 minutes)
	@$(run_python) exec "$$python" -m pytest -n 4 tests/processes $(ARGS)

topologies: ## test Sentinel, Cluster, TLS, replicas, Redis users with few rights, and all scripts on other servers
	@$(run_python) exec "$$python" -m pytest -n $(JOBS) tests/topologies tests/conformance --stores others $(ARGS)

browser: ## test the admin and the dashboard in Chromium
	@$(run_python) exec "$$python" -m pytest -n $(JOBS) tests/browser $(ARGS)

docs: ## test the code and the statements of the documentation, the tutorials and the files in deploy/
	@$(lint_python) exec "$$python" -m pytest -n $(JOBS) tests/docs $(ARGS)

test-all: test processes topologies browser model docs soak ## run all suites above, the model and the soak

nightly: ## run all suites at full length, on every installed server (hours)
	@$(run_python) "$$python" -m pytest -n $(JOBS) -m "" --stores all tests $(ARGS)
	@$(run_python) "$$python" -m tests.mutants
	@$(run_python) "$$python" -m tests.soak.mutants
	@$(run_python) "$$python" -m tests.soak --profile long --minutes 30
	@$(run_python) "$$python" -m benchmarks.growth --large

ci: ## run the static checks of CI: format, lint, types, imports, security, generated code, the wheel
	@$(lint_python) exec "$$python" scripts/ci.py --jobs $(JOBS) $(ARGS)

fuzz: ## fuzz the parsers: test them with random changes of the stored inputs; ARGS="--minutes 10"
	@$(run_python) exec "$$python" -m tests.model.fuzz $(ARGS)

soak: ## run real processes under faults for three minutes, and check that no task is lost; ARGS="--minutes 10 --seed 7 --profile long"
	@$(run_python) exec "$$python" -m tests.soak $(ARGS)

soak-mutants: ## check that the soak detects deliberate errors in sixteen copies of the code (minutes)
	@$(run_python) exec "$$python" -m tests.soak.mutants $(ARGS)

model: ## compare random sequences of operations with a model:  make model ARGS="--model-runs 20000 --model-seed 7"
	@$(run_python) exec "$$python" -m pytest -n $(JOBS) tests/model $(ARGS)

mutants: ## check that the tests detect each of many deliberate errors in the scripts and the protocol (15 minutes)
	@$(run_python) exec "$$python" -m tests.mutants $(ARGS)

bench: ## measure the speed, print a table and write JSON (minutes); ARGS="--aims" compares with the aims
	@$(run_python) exec "$$python" -m benchmarks $(ARGS)

bench-check: ## compare the instructions per task with the parent commit, and fail from 5 % more (2 minutes); BASE=REV
	@$(run_python) exec "$$python" -m benchmarks.check "$(BASE)"

bench-peers: ## compare taskq with other task queues, which are installed from PyPI and npm (20 minutes)
	@$(run_python) exec "$$python" -m benchmarks --peers $(ARGS)

site: ## build the documentation site in build/site, and check its links
	@$(docs_python) exec "$$python" -m scripts.docs $(ARGS)

screenshots: ## take the pictures in docs/images again; needs Chromium
	@$(run_python) exec "$$python" -m pytest -q tests/browser/admin/pictures.py tests/browser/dashboard/pictures.py tests/taskq_terminal/pictures.py $(ARGS)

format: ## format the code, and fix simple lint errors
	@$(lint_python) "$$python" -m ruff check --fix --quiet . ; "$$python" -m ruff format .

lint: ## check the format, the style and the import contract
	@$(lint_python) "$$python" scripts/ci.py --only format --only lint --only imports

types: ## check the static types
	@$(lint_python) "$$python" scripts/ci.py --only types

clean: ## delete environments and caches
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
