# Which torch to install: any requirement or wheel, e.g. make demo TORCH=https://…/torch-2.13.0+cu130-….whl
TORCH ?= torch==2.13.0
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Spinning OpenMP threads make small matrix products many times slower as soon as anything else runs.
export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-slow test-gpu check bench format clean

demo: $(STAMP)
	$(BIN)/graftlm demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow and not gpu"

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

test-gpu: $(STAMP)
	$(BIN)/pytest -m gpu

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell src tests recipes benchmarks *.md
	$(BIN)/pytest tests/architecture

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/kernels.py --out benchmarks/results/kernels.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/frozen.py --out benchmarks/results/frozen.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bridge.py --out benchmarks/results/bridge.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/adapt.py --out benchmarks/results/adapt.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/train.py --out benchmarks/results/train.json
	$(BIN)/python benchmarks/arms.py --out benchmarks/results/arms.json --ship
	$(BIN)/python benchmarks/demo.py --out benchmarks/results/demo.json

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
