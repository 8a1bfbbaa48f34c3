# Every target makes the virtual environment it needs; `make VENV=/elsewhere test` uses another.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
WEFT   := $(BIN)/weft

.PHONY: demo up test test-mtls faults check fix gen bench wheel clean

demo: $(VENV)/.run  ## one real question through the whole mesh
	$(WEFT) demo

up: $(VENV)/.run  ## everything on this machine
	$(WEFT) up

test: $(VENV)/.dev  ## all tests, with coverage
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

test-mtls: $(VENV)/.dev  ## the tests of the support fleet and the command with mTLS and auth everywhere
	WEFT_TEST_MESH_TLS=on $(BIN)/python -m pytest tests/support tests/cli $(ARGS)

faults: $(VENV)/.dev  ## ten minutes of kills, cuts and full disks; MINUTES=60 for an hour
	GRPC_VERBOSITY=ERROR $(BIN)/python tests/faults/run.py --minutes $(or $(MINUTES),10) $(ARGS)
	GRPC_VERBOSITY=ERROR $(BIN)/python tests/faults/run.py --scenario fail-over --minutes 0.5
	GRPC_VERBOSITY=ERROR $(BIN)/python tests/faults/run.py --scenario older-data --minutes 0.2
	GRPC_VERBOSITY=ERROR $(BIN)/python tests/faults/jobs/run.py --jobs 500

check: $(VENV)/.dev  ## lint, types, import contracts, contracts, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	VENV=$(VENV) tools/buf.sh lint
	VENV=$(VENV) tools/buf.sh breaking
	$(BIN)/python tools/gen.py --check

fix: $(VENV)/.dev  ## mend what tools can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gen: $(VENV)/.dev  ## code from the contracts
	$(BIN)/python tools/gen.py

bench: $(VENV)/.dev  ## every benchmark, one after the other
	for script in rpc mtls gateway_json connect doors idle_clients broker broker_idle debate orchestrator models first_token; do $(BIN)/python benchmarks/$$script.py || exit 1; done

wheel: $(VENV)/.dev  ## build the wheel and run the fundamentals against it
	VENV=$(VENV) PYTHON=$(PYTHON) tools/wheel.sh

clean:  ## everything that was made
	rm -rf $(VENV) dist build .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.run: pyproject.toml | $(VENV)/.venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary -e .
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary -e '.[dev]'
	touch $@ $(VENV)/.run
