# `make demo` and `make test` need Python 3.11 or newer, git and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The CPU build of torch that the tests train and check the network with; pip finds it on PyPI.
TORCH := torch==2.13.0

.PHONY: demo test test-fast lint types docs clean

$(VENV)/core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/dev: $(VENV)/core
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[train,xccd,sentinelhub,clouds,s3,video]"
	$(BIN)/pip install --quiet --group dev
	touch $@

demo: $(VENV)/core ## simulate a city, import its scenes, score them, and write demo/report.html
	$(BIN)/urbandelta demo --out demo

# Files of tests are shared out among the cores, at most four: each process holds a few hundred MB.
test: $(VENV)/dev ## the whole suite
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-fast: $(VENV)/dev ## what takes seconds
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

docs: $(VENV)/core ## the documentation as pages in site/
	$(BIN)/pip install --quiet --group docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
