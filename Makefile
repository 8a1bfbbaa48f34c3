# Every target makes the virtual environment it needs; `make VENV=/elsewhere test` uses another.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
WEFT   := $(BIN)/weft

.PHONY: demo up test clients faults drills check fix gen bench wheel image clean

demo: $(VENV)/.run  ## one real question through the whole mesh
	$(WEFT) demo

up: $(VENV)/.run  ## everything on this machine
	$(WEFT) up

test: $(VENV)/.dev  ## all tests, with coverage
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

clients: $(VENV)/.dev  ## clients and agents in Go, Java, TypeScript, Rust and C++, as far as their tools are here
	$(MAKE) -C clients --no-print-directory VENV=$(abspath $(VENV))

faults: $(VENV)/.dev  ## ten minutes of kills, cuts and full disks; MINUTES=60 for an hour
	GRPC_VERBOSITY=ERROR $(BIN)/python tests/faults/run.py --minutes $(or $(MINUTES),10) $(ARGS)
	GRPC_VERBOSITY=ERROR $(BIN)/python tests/faults/run.py --scenario fail-over --minutes 0.5
	GRPC_VERBOSITY=ERROR $(BIN)/python tests/faults/run.py --scenario older-data --minutes 0.2
	GRPC_VERBOSITY=ERROR $(BIN)/python tests/faults/jobs/run.py --jobs 500
	GRPC_VERBOSITY=ERROR $(BIN)/python tests/faults/rolling/run.py

drills: $(VENV)/.dev  ## every alert fires and clears, on a mesh that is broken on purpose
	$(BIN)/python tests/drills/run.py $(ARGS)

check: $(VENV)/.dev  ## lint, types, import contracts, contracts, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	VENV=$(VENV) tools/buf.sh lint
	VENV=$(VENV) tools/buf.sh breaking
	$(BIN)/python tools/gen.py --check
	$(BIN)/python tools/dashboards.py --check

fix: $(VENV)/.dev  ## mend what tools can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gen: $(VENV)/.dev  ## code from the contracts
	$(BIN)/python tools/gen.py
	$(BIN)/python tools/dashboards.py

bench: $(VENV)/.dev  ## every benchmark, one after the other
	for script in rpc gateway_json connect doors idle_clients broker broker_idle debate orchestrator models first_token registry; do $(BIN)/python benchmarks/$$script.py || exit 1; done

wheel: $(VENV)/.dev  ## build the wheel and run the fundamentals against it
	VENV=$(VENV) PYTHON=$(PYTHON) tools/wheel.sh

image: $(VENV)/.dev  ## run the image's steps, then every part in it, without a container engine; needs root
	$(BIN)/python tools/image.py build $(or $(IMAGE),dist/image)
	$(BIN)/python tools/image.py check $(or $(IMAGE),dist/image)

clean:  ## everything that was made
	rm -rf $(VENV) dist build .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	$(MAKE) -C clients clean
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
