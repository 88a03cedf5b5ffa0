# make demo: install into .venv and segment a drawn photograph; make app: the viewer; make test: the suite;
# make test-e2e: the viewer in a browser; make results: RESULTS.md from the records; make check: linters;
# make study: train and score the hybrids beside a plain U-Net.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo app test test-e2e pictures results study check format clean

demo: $(STAMP)
	$(BIN)/retina-seg demo --out demo

app: $(STAMP)
	$(BIN)/retina-seg app

# Two processes of one thread each: more threads than cores wait for each other, four times as long.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/e2e

# Debian's Chromium is installed where there is no browser and apt-get may be used; else the tests say what is missing.
test-e2e: $(STAMP)
	$(BIN)/pip install --quiet --editable ".[e2e]"
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null || true
	$(BIN)/python -m pytest tests/e2e

# The screenshots of the README, from drawn photographs.
pictures: $(STAMP)
	RETINA_SEG_PICTURES=tests/pictures $(MAKE) test-e2e

# The project's own pages from its own records, below configs; nothing is trained or scored.
results: $(STAMP)
	$(BIN)/retina-seg results --results configs/results --robustness configs/robustness \
		--studies configs/classify/results --out RESULTS.md

# The study of the hybrids in RESULTS.md anew, hours; RETINA_SEG_DATA names the folder of the sets. It goes on where it
# stopped; its records and tables come into runs/study, to be laid beside those that are published.
STUDY := runs/study
HYBRIDS := runs/benchmark/hybrids
SEEDS := seed0 seed1 seed2
SCORED := $(foreach seed,$(SEEDS),$(foreach name,reference csc dict ridge,$(HYBRIDS)-$(name)/drive/$(seed)))
CODED := $(filter $(HYBRIDS)-csc/%,$(SCORED))
WORSE := --results $(STUDY)/robustness --degradation untouched --degradation "blur 1" --degradation "blur 2" \
	--degradation "noise 10" --degradation "noise 20" --degradation "JPEG 20" --degradation "JPEG 10"
BENCHMARK := $(BIN)/retina-seg benchmark --results $(STUDY)/results --no-variants
study: $(STAMP)
	$(BENCHMARK) configs/hybrids/*.yaml --photographs 1,2,5,10,all
	$(BENCHMARK) configs/hybrids/controls/*.yaml configs/hybrids/long/*.yaml
	$(BENCHMARK) configs/hybrids/*.yaml --protocol cross-single
	$(BIN)/retina-seg robustness $(SCORED) $(WORSE)
	for setting in "--penalty-factor 2" "--coder-steps 10" "--coder-steps 10 --penalty-factor 2"; do \
		$(BIN)/retina-seg robustness $(CODED) $(WORSE) $$setting || exit; done
	$(BENCHMARK) configs/hybrids/lesions/*.yaml --protocol idrid
	$(BIN)/retina-seg results --results $(STUDY)/results --robustness $(STUDY)/robustness --out $(STUDY)/RESULTS.md

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
