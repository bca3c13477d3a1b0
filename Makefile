# The project's commands. Each sets up what it needs; nothing else has to be installed but Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Not quiet: the first run downloads for a while, and pip's bars show how far it is.
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check bench proto train clean

# What running the system needs: no torch.
$(VENV)/.run: pyproject.toml
	@echo "setting up $(VENV) (first time: a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -e .
	@touch $@

# What developing needs: tests, checks, and torch for the training code.
$(VENV)/.dev: pyproject.toml
	@echo "setting up $(VENV) for development (torch is large: some minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install torch==2.13.0
	@$(PIP) install -e '.[dev,train]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	@$(BIN)/adaptivegen demo --out demo-output

test: $(VENV)/.dev
	@$(BIN)/pytest -n 2 --dist loadfile tests/unit tests/contract
	@$(BIN)/pytest tests/e2e tests/gpu tests/integration  # one at a time: each is a system of many processes

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m adaptivegen.rpc.generate --check

bench: $(VENV)/.dev
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

proto: $(VENV)/.dev
	@$(BIN)/python -m adaptivegen.rpc.generate

train: $(VENV)/.dev
	@$(BIN)/python -m training $(or $(ARGS),--device cpu --hours 2)

clean:
	rm -rf $(VENV) demo-output .mypy_cache .ruff_cache .pytest_cache
