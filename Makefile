# The two main commands are `make demo` and `make test`; `make` alone lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
VENV := .venv/.installed
PYTEST := $(BIN)/python -m pytest
# A worker for each core; one that crashes has failed, because xdist 3.8 may wait for ever after it replaces one. They keep their files deeper than one alone would, and the path of a socket has to fit into 108 bytes.
AT_ONCE = --numprocesses auto --max-worker-restart 0 --basetemp /tmp/$(FARMHAND_CHECKOUT)-$@
# Tests of a file share what is set up once for them; the longest files come first.
BY_FILE := --dist loadfile --no-loadscope-reorder
# Tests of real daemons wait for most of their time: for retries, for ends, for what must not happen. So there is one worker more.
WAITING = --numprocesses $(shell expr 1 + "$$(nproc)")
# Ansible works step by step, and so do the hosts that it builds: beside these stages there is time for others.
STAGES := 'lint unit integration chaos + molecule + e2e'
SHELL_SCRIPTS := $(filter-out %.py %/__pycache__,$(wildcard scripts/*)) .ci/run plugin/hooks/event.sh
# Molecule's tests are named one by one: mypy takes the directory for the installed package of that name.
PYTHON_SOURCES := src tests benchmarks library action_plugins filter_plugins scripts llm-farmhand $(wildcard molecule/*/tests/*.py)
# Programs of the venv find each other (ansible-lint calls ansible-playbook) and Ansible its own settings.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# pytest's rewriting of the tests is kept for the next process: it takes 4 s of each worker.
unexport PYTHONDONTWRITEBYTECODE
# Part of Molecule's container names, so that two checkouts do not share them.
export FARMHAND_CHECKOUT := $(shell printf %s '$(CURDIR)' | sha256sum | cut -c1-8)

.PHONY: demo-venv help demo down test check fix lint types ansible-lint texts unit integration chaos soak molecule e2e e2e-aws bench clean dist collection lock man schemas venv tools image

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## Boot a farm host in a container, build it with site.yml, run a task on it; leaves it running
	@scripts/demo

down: ## Remove everything that make demo made
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m tests.support.farm down; fi
	@scripts/engine stop

test: ## Everything: lint, unit, integration, chaos, molecule, e2e; stops at the first stage that fails
	@scripts/tools test
	@$(MAKE) --no-print-directory venv
	@scripts/engine start
	@scripts/stages $(STAGES)

check: ## Lint and unit tests: what to run while writing
	@scripts/tools test
	@$(MAKE) --no-print-directory venv
	@scripts/stages 'unit + lint'

fix: $(VENV) ## Format the sources, and repair what can be repaired
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(VENV) ## Formatting, types, Ansible and YAML rules, the roles' README tables, shell scripts
	@scripts/tools lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs=3 --output-sync ansible-lint types texts

types: $(VENV) ## Types: mypy, strict
	$(BIN)/mypy $(PYTHON_SOURCES)

ansible-lint: $(VENV) ## Ansible's rules, profile production
	@scripts/unchanged ansible-lint $(BIN)/ansible-lint --offline

texts: $(VENV)
	$(BIN)/yamllint --strict .
	$(BIN)/python scripts/role_readmes.py --check
	shellcheck --external-sources $(SHELL_SCRIPTS)

unit: $(VENV) ## Unit tests
	@scripts/tools test
	$(PYTEST) $(AT_ONCE) tests/unit

integration: $(VENV) ## The real daemon in a temp directory
	@scripts/tools test
	@scripts/again_alone $@ $(PYTEST) $(AT_ONCE) $(WAITING) $(BY_FILE) tests/integration

chaos: $(VENV) ## The agent killed at random moments, over 40 seeds: nothing lost, nothing invented, every charge accounted
	@scripts/tools test
	$(PYTEST) $(AT_ONCE) tests/chaos

soak: $(VENV) ## The same over 208 seeds, and large batches on AWS in containers: before a release
	@scripts/tools test
	$(PYTEST) $(AT_ONCE) tests/chaos --seeds 208
	@scripts/base-image
	$(PYTEST) tests/soak

molecule: $(VENV) ## The roles on Debian 12 and 13 with systemd in Docker, and a batch over three hosts
	@scripts/tools demo
	@scripts/base-image bookworm trixie
	$(BIN)/molecule test --all

# A farm for each of two workers. The longest files begin: tests/e2e/conftest.py names them.
e2e: $(VENV) ## A farm host over real sshd, with the real CLI
	@scripts/tools test
	@scripts/base-image
	@scripts/again_alone $@ $(PYTEST) $(AT_ONCE) --numprocesses 2 $(BY_FILE) tests/e2e

# The first file makes the image; those beside it need none, then come those that wait for containers, the longest first.
# pytest-xdist gives each worker two files at the beginning. Most of the time is waiting, so four workers more.
AWS_TESTS = tests/e2e/test_aws_places.py \
	$(addprefix tests/integration/, aws/test_cloud.py aws/test_aws_batch_ends.py cloud/test_shard.py cloud/test_kinds.py \
	cloud/test_shard_budget.py aws/test_telemetry.py aws/test_cloudwatch.py) \
	tests/e2e/test_aws_ends.py tests/e2e/test_aws_*.py $(addsuffix /test_*.py, tests/e2e/aws tests/integration/aws tests/integration/cloud)

e2e-aws: $(VENV) ## AWS alone: the double of it, its stacks by Ansible and by the commands, tasks in real containers
	@scripts/tools test
	@scripts/engine start
	@scripts/base-image
	$(PYTEST) $(AT_ONCE) --numprocesses $(shell expr 4 + "$$(nproc)") $(BY_FILE) $(AWS_TESTS)

bench: $(VENV) ## Speed and memory beside what users would use instead: one table, and JSON; BENCH='--only one_task --rounds 3'
	@scripts/tools bench
	@scripts/engine start
	@scripts/base-image
	@$(BIN)/python -m benchmarks $(BENCH)

man: $(VENV) ## Write the man pages: man -l .cache/man/man1/farmhand.1, farmhand-VERB.1, claude-cheap.1
	$(BIN)/python -m farmhand.cli.man_pages .cache/man/man1

schemas: $(VENV) ## Write docs/schemas again: JSON Schemas of what the commands print with --json
	$(BIN)/python -m farmhand.cli.schemas docs/schemas

clean: down ## make down, and remove what the builds left (.venv and .cache included)
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .ansible .hypothesis artifacts env dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

dist: $(VENV) ## Wheel, sdist, bill of materials and llm's plugin in dist/: the same sources give the same bytes
	@$(BIN)/python scripts/dist.py dist

collection: $(VENV) ## Roles, modules and playbooks as the Ansible collection farmhand.farm in dist/
	@$(BIN)/python scripts/collection.py dist

lock: ## Resolve requirements/*.txt again, for every platform, with hashes (needs uv)
	@command -v uv >/dev/null || { echo "make lock: uv is missing: install it (pipx install uv)" >&2; exit 3; }
	uv pip compile $(LOCK_OPTIONS) pyproject.toml -o requirements/agent.txt
	uv pip compile $(LOCK_OPTIONS) pyproject.toml --extra aws -c requirements/agent.txt -o requirements/cloud.txt
	uv pip compile $(LOCK_OPTIONS) pyproject.toml --all-extras --group dev -c requirements/cloud.txt -o requirements/dev.txt
	uv pip compile $(LOCK_OPTIONS) pyproject.toml --extra otel -c requirements/dev.txt -o requirements/otel.txt
	uv pip compile $(LOCK_OPTIONS) pyproject.toml --extra workstation -c requirements/dev.txt -o requirements/workstation.txt
	uv pip compile $(LOCK_OPTIONS) --no-annotate benchmarks/pinned/litellm.in -o benchmarks/pinned/litellm.txt

LOCK_OPTIONS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

venv: $(VENV) ## Only the Python environment
	@:

# A venv for the tests has what the demo needs as well.
demo-venv: $(if $(wildcard $(VENV)),$(VENV),.venv/.demo)
	@:

image: ## Only the base image of the containers
	@scripts/base-image

VENV_PARTS := pyproject.toml scripts/venv scripts/common.sh tests/support/compiled_once.py

$(VENV): requirements/dev.txt $(VENV_PARTS)
	@scripts/venv dev

.venv/.demo: requirements/workstation.txt $(VENV_PARTS)
	@scripts/venv workstation
