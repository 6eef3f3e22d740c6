# One command for everything; each sets up what it needs. `make tune ARGS="--max_evals 200"`
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
ADDRESS ?= http://127.0.0.1:8265

.PHONY: setup init_mlflow data train tune promote serve app predict submit tracking-server ui test quick lint format bench bench-serve
.DEFAULT_GOAL := tune

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

init_mlflow: setup
	$(BIN)/python -m ray_jobs.init_mlflow $(ARGS)

data: setup
	$(BIN)/python -m ray_jobs.generate_data $(ARGS)

train: setup
	$(BIN)/python -m ray_jobs.train $(ARGS)

tune: setup
	$(BIN)/python -m ray_jobs.tune $(ARGS)

promote: setup
	$(BIN)/python -m ray_jobs.promote $(ARGS)

serve: setup
	$(BIN)/python -m ray_jobs.serve $(ARGS)

app: setup
	$(BIN)/python -m ray_jobs.app $(ARGS)

predict: setup
	$(BIN)/python -m ray_jobs.predict $(ARGS)

# To a cluster: `ray start --head` is one. The record goes to MLFLOW_TRACKING_URI, or to the store here.
submit: setup
	$(BIN)/python -m ray_jobs.tune --address $(ADDRESS) $(ARGS)

tracking-server: setup
	$(BIN)/python -m ray_jobs.tracking_server $(ARGS)

ui: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" ./mlflow_ui.sh $(ARGS)

test: setup lint
	$(BIN)/python -m pytest -m "not (slow or cluster or browser or gpu)" $(ARGS)
	$(BIN)/python -m pytest -m "(slow or cluster or browser) and not gpu" $(ARGS)

quick: setup
	$(BIN)/python -m pytest -m "not (slow or cluster or browser or gpu)" $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-serve: setup
	$(BIN)/python -m benchmarks.serving $(ARGS)
	$(BIN)/python -m benchmarks.serving_faults
	$(BIN)/python -m benchmarks.batch_scoring
