# voxplain: everything a newcomer types. `make help` lists it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
CONTRACT := $(wildcard proto/voxplain/*/*.proto proto/voxplain/*/*/*.proto)
# onnxruntime-gpu also holds the CPU provider; EXTRA=server-cpu takes the small wheel instead.
EXTRA ?= server

.DEFAULT_GOAL := help
.PHONY: stress neighbours help setup stubs lint types floors contract release-contract unit test monitoring-test bench bench-full image-test demo clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

setup: $(READY) ## Make .venv with voxplain and all that develops it

$(READY): pyproject.toml constraints.txt hatch_build.py proto/generate.py $(CONTRACT)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRA),dev]'
	touch $(READY)

# What a user needs: the server, the command and its pictures; 1.7 GB where all that develops them takes 2.2.
USABLE := $(VENV)/usable
$(USABLE): pyproject.toml constraints.txt hatch_build.py proto/generate.py $(CONTRACT)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(MAKE) --silent --question $(READY) || $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRA),imaging]'
	touch $(USABLE)

stubs: setup ## Make the Python stubs from proto/ anew
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python proto/generate.py

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy --strict
	$(BIN)/mypy proto/python/voxplain server client tests examples hatch_build.py proto/generate.py

floors: setup ## import-linter: who may import whom
	$(BIN)/lint-imports

contract: setup ## buf: lint, format, and no break of the released contract
	cd proto && $(abspath $(BIN))/buf lint
	cd proto && $(abspath $(BIN))/buf format --diff --exit-code
	cd proto && $(abspath $(BIN))/buf breaking --against released/voxplain-v1.json

release-contract: setup ## Take today's contract as the released one that `make contract` guards
	cd proto && $(abspath $(BIN))/buf build --exclude-source-info --path voxplain/v1 -o released/voxplain-v1.json

unit: setup ## pytest alone
	$(BIN)/python -m pytest

explore: setup ## The tests that draw their cases, with fresh draws instead of the same ones
	VOXPLAIN_DRAWS=explore $(BIN)/python -m pytest -q -m hypothesis

test: lint types floors contract unit ## All that must hold: the one command before a commit

monitoring-test: setup ## Real Prometheus and Alertmanager (Debian's) watch a server under load: rules, alerts, every panel (2 minutes)
	VOXPLAIN_TOOLS="promtool prometheus prometheus-alertmanager" $(BIN)/python -m pytest -q tests/monitoring/real_stack.py

bench: setup ## Measure speed and memory beside their bounds; writes docs/benchmarks.md and bench.json (50 minutes on two slow cores)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRA),dev,bench]'
	$(BIN)/python -m tests.benchmarks

bench-full: setup ## The same for other networks and volumes, with what is bad in it: hours, goes on where it stopped
	$(BIN)/python -m tests.benchmarks.full

image-test: setup ## Build the image with buildah, without an engine, and explain the demo through it (root; Debian's buildah, debootstrap; TARGET=gpu)
	$(BIN)/python -m tests.image --target $(or $(TARGET),cpu)

neighbours: setup ## Clients and servers of other projects (Triton's client, ...), each in an environment of its own, beside ours
	$(BIN)/python -m tests.neighbours

stress: setup ## Try to knock a server over, with goal beside figure; writes docs/reliability.md (an hour)
	$(BIN)/python -m tests.stress

demo: $(USABLE) ## Start a server, explain one synthetic case by all methods, and look at it: demo-out/overview.png
	$(BIN)/python -m examples.glioma_demo.demo --out demo-out

include client/clients.mk

clean: ## Remove what make made
	rm -rf client/*/build client/go/v1 client/typescript/src/gen client/typescript/node_modules
	rm -rf $(VENV) .neighbours demo-out build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
