# Everything runs in .venv, which the first target makes with PYTHON (3.11 to 3.13).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= runs
comma := ,
SEEDS := 0 1 2 3 4
# Tests with several processes of their own, which two at once would slow down too much.
JOBS := tests/distributed/test_multihost.py tests/test_kill.py tests/test_full_disk.py

.PHONY: demo demo-seeds test test-slow test-long lint docs linkcheck clean

$(VENV)/installed: setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) \
	  else "error: Python %d.%d; byol_jax needs 3.11 to 3.13: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .[test]
	touch $@

# Pretrains on generated images, prints the table of the frozen encoder and its baselines, and
# writes the report page.
demo: $(VENV)/installed
	$(BIN)/python -m experiments.pretrain --config=experiments/configs/demo.py --workdir=$(RUNS)/demo
	$(BIN)/python -m experiments.evaluate --config=experiments/configs/eval/demo.py \
	  --checkpoint=$(RUNS)/demo --workdir=$(RUNS)/demo/evaluation
	$(BIN)/python -m experiments.report $(RUNS)/demo

# The same with five seeds; the table gives mean and standard deviation.
demo-seeds: $(VENV)/installed
	set -e; for seed in $(SEEDS); do \
	  $(BIN)/python -m experiments.pretrain --config=experiments/configs/demo.py \
	    --workdir=$(RUNS)/demo-seed$$seed --config.seed=$$seed; \
	  $(BIN)/python -m experiments.evaluate --config=experiments/configs/eval/demo.py \
	    --checkpoint=$(RUNS)/demo-seed$$seed --workdir=$(RUNS)/demo-seed$$seed/evaluation \
	    --config.seed=$$seed; \
	done
	$(BIN)/python -m experiments.table --results=$(subst $() $(),$(comma),$(strip \
	  $(foreach seed,$(SEEDS),$(RUNS)/demo-seed$(seed)/evaluation)))

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --durations=10 -m 'not slow and not long'

# The golden values once more as users compile: the other tests switch optimizations off.
test-slow: $(VENV)/installed
	XLA_FLAGS=--xla_backend_optimization_level=3 $(BIN)/python -m pytest tests/test_fidelity.py
	$(BIN)/python -m pytest -n 2 -m slow $(addprefix --ignore=,$(JOBS))
	$(BIN)/python -m pytest -m slow $(JOBS)

# Not in .ci/run: run by hand when the code changes that they test.
test-long: $(VENV)/installed
	$(BIN)/python -m pytest -m long

lint: $(VENV)/installed
	$(BIN)/ruff check .

$(VENV)/docs-installed: $(VENV)/installed
	$(BIN)/pip install --quiet --editable .[docs]
	touch $@

# The pages as a site, in docs/_build/html. A warning is an error.
docs: $(VENV)/docs-installed
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# Addresses of other sites; needs the network.
linkcheck: $(VENV)/docs-installed
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -b linkcheck docs docs/_build/linkcheck

clean:
	rm -rf $(VENV) $(RUNS) docs/_build
