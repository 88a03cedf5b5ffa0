# make demo: install into .venv and segment a drawn photograph; make app: the viewer; make test: the suite;
# make test-e2e: the viewer in a browser; make results: RESULTS.md from the records; make check: linters.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo app test test-e2e pictures results check format clean

demo: $(STAMP)
	$(BIN)/retina-seg demo --out demo

app: $(STAMP)
	$(BIN)/retina-seg app

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/e2e

# Debian's Chromium is installed where there is no browser and apt-get may be used; else the tests say what is missing.
test-e2e: $(STAMP)
	$(BIN)/pip install --quiet --editable ".[e2e]"
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null || true
	$(BIN)/python -m pytest tests/e2e

# The screenshots of the README, from drawn photographs.
pictures: $(STAMP)
	RETINA_SEG_PICTURES=tests/pictures $(MAKE) test-e2e

# The tables of the benchmark from the records in configs/results; nothing is trained or scored.
results: $(STAMP)
	$(BIN)/retina-seg results

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/retina-seg models verify

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info demo

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $(STAMP)
