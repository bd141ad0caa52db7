# The index of habits. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
MAKEFLAGS += --no-print-directory
# Each of the hundreds of programs that tests start would compile all that it loads.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 4
MINUTES ?= 10
DAYS ?= 60
IMAGE ?=
KEEP ?=
VMS ?= 200
DEATHS := tests/scheduler/test_vsphere_crashes.py tests/scheduler/test_vm_restore_crashes.py

# uv records no index of its own in a lock file: whoever installs chooses where packages come from.
COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make lock'

.PHONY: help install system lock test lint format demo demo-stop demo-vsphere demo-vsphere-stop bench docs chaos days fuzz clean
.PHONY: audit bench-repository simulate vsphere-scale test-vsphere

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

install: .venv/installed ## Set up .venv with the locked packages and both commands
	@ops/install-system-packages demo

.venv/installed: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	echo 'installing the locked packages into .venv'
	[[ -x $(BIN)/python ]] || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

system: .venv/installed ## Install the system packages that the tests need (as root), or say which are missing
	@ops/install-system-packages demo tests

lock: .venv/installed ## Resolve the dependencies of pyproject.toml anew (UPGRADE=--upgrade for newer ones)
	@$(COMPILE) $(UPGRADE) pyproject.toml -o requirements.lock
	$(COMPILE) $(UPGRADE) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) $(UPGRADE) --group build -c requirements-dev.lock -o requirements-build.lock

# A file's tests stay together, since they share what its fixtures started. A worker that dies ends the run: replaced,
# it would hang it.
test: install system ## Run all tests; also sets up what they need
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(TESTS)

lint: install ## Style, types, import rules, and generated documentation that is stale
	@$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(wildcard docs/generate.py),$(BIN)/python docs/generate.py --check)

format: .venv/installed ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix
	$(BIN)/ruff format

demo: install ## A backup, an incremental and a restore by a whole fleet on this machine (KEEP=1 leaves it running)
	@exec $(BIN)/python -m ops.demo $(if $(KEEP),--keep)

demo-stop: .venv/installed ## End the fleet that `make demo KEEP=1` left running
	@$(BIN)/python -m ops.demo --stop

demo-vsphere: install ## VMs of a simulated vCenter: full, incremental by changed blocks, a restored VM (KEEP=1 leaves it running)
	@ops/install-system-packages demo-vsphere
	exec $(BIN)/python -m ops.demo_vsphere $(if $(KEEP),--keep)

demo-vsphere-stop: .venv/installed ## End the fleet that `make demo-vsphere KEEP=1` left running
	@$(BIN)/python -m ops.demo_vsphere --stop

vsphere-scale: system ## VMS=200 of a simulated vCenter with 500 disks through 3 proxies, every restore compared
	@VSPHERE_SCALE_VMS=$(VMS) $(BIN)/python -m pytest -q -s --timeout 7200 tests/system/test_vsphere_scale.py

test-vsphere: install ## Ask a real vCenter: VCENTER_URL=https://user@host VCENTER_PASSWORD_FILE=… [VCENTER_TEST_VM=…]
	@[[ -n "$${VCENTER_URL:-}" ]] || { echo 'VCENTER_URL=https://user@host is needed; docs/vsphere.md says more' >&2; exit 2; }
	$(BIN)/python -m pytest -v $(if $(VCENTER_TEST_VM),,-m 'not touches_vm') tests/vcenter

audit: install ## Vulnerabilities and licences of the locked packages, the image's rules (asks PyPI); IMAGE=proxyfleet: one that is built, too
	@for lock in requirements requirements-build requirements-dev; do
		echo "$$lock.lock"
		$(BIN)/pip-audit --strict --disable-pip --require-hashes -r "$$lock.lock"
	done
	$(BIN)/pip-licenses --order license --summary
	$(BIN)/python -m pytest -q tests/ops/test_image.py
	$(if $(IMAGE),ops/docker/audit-image $(IMAGE))

bench: system ## Speed and memory beside restic and borg; a missed target exits 1
	@exec $(BIN)/python -m benchmarks

bench-repository: system ## Checks, collections, restores and reads of a repository beside restic; a missed target exits 1
	@exec $(BIN)/python -m benchmarks.repository

simulate: install ## The dispatch policy with 1,000 proxies and 100,000 disks; a missed promise exits 1
	@exec $(BIN)/python -m benchmarks.simulation

docs: install ## Generate the reference pages anew
	@$(BIN)/python docs/generate.py

chaos: system ## Hurt everything a fleet consists of at random for MINUTES=10, and print how it recovers
	@CHAOS_MINUTES=$(MINUTES) $(BIN)/python -m pytest -q -s --timeout $$(($(MINUTES) * 60 + 900)) tests/surviving/test_chaos.py

days: system ## DAYS=60 of a job of 20 VMs with kills and key rotations: what is stored beside what is needed
	@DAYS=$(DAYS) $(BIN)/python -m pytest -q -s --timeout 7200 tests/repository/test_days.py

fuzz: system ## Property tests with many more examples, and schedulers that die at every moment of more stories
	@HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -n $(WORKERS) -q --timeout 3600 tests/repository tests/transport tests/mover $(DEATHS)

clean: ## Remove everything that is generated
	@rm -rf .venv .demo .demo-vsphere .cache .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
