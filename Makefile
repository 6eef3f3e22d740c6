# One command for everything; each sets up what it needs. `make tune ARGS="--max_evals 200"`
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
ADDRESS ?= http://127.0.0.1:8265

.PHONY: setup init_mlflow data train tune promote serve app predict submit tracking-server ui test quick lint format bench bench-serve bench-quality
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

# Tests of several hosts mostly wait for them: they run beside the quick ones, and are shown after them.
test: setup lint
	$(BIN)/python -m pytest -m cluster $(ARGS) >$(VENV)/cluster.log 2>&1 & cluster=$$!; \
	$(BIN)/python -m pytest -m "not (slow or cluster or browser or gpu)" $(ARGS); quick=$$?; \
	wait $$cluster; cluster=$$?; cat $(VENV)/cluster.log; \
	test $$quick = 0 && test $$cluster = 0
	$(BIN)/python -m pytest -m "(slow or browser) and not (cluster or gpu)" $(ARGS)

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

# DATA is a folder of tables, see benchmarks/quality/tables.py.
bench-quality: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks.quality --data $(DATA) $(ARGS)
