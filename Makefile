# make demo    train a digit classifier        make bench   compare with the peers: calls, products, a training step
# make test    the tests, on every ISA level   make lint    formats, types, spelling
#
# Each target sets up what it needs: the environment .venv (peers: bench/.venv-peers) and the package, built from this tree.
PYTHON ?= python3
VENV := .venv
PEERS := bench/.venv-peers
# Kept when a build fails half-way, so that the next one goes on from there.
BUILD := --no-build-isolation -C build-dir=build/{wheel_tag}
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-peers test-no-openmp sweep bench lint format clean

demo: install
	$(VENV)/bin/trainstep train digits

test: install
	$(VENV)/bin/python tests/run_levels.py -m "not slow and not peers" -q

# Against PyTorch and scikit-learn.
test-peers: $(PEERS)/bin/python
	$(PEERS)/bin/python $(PIP) --group peers
	$(PEERS)/bin/python $(PIP) $(BUILD) --force-reinstall --no-deps .
	$(PEERS)/bin/python -m pytest -q -m peers tests

# A build without OpenMP runs on one thread.
test-no-openmp: $(VENV)/.ready
	rm -rf build/no-openmp
	$(VENV)/bin/python $(PIP) ".[test]" --no-build-isolation --target build/no-openmp/site \
	    -C build-dir=build/no-openmp/cmake -C cmake.define.TRAINSTEP_OPENMP=OFF
	PYTHONPATH=build/no-openmp/site $(VENV)/bin/python -c "import trainstep; assert not trainstep.config()['openmp']"
	PYTHONPATH=build/no-openmp/site $(VENV)/bin/python -m pytest -q tests/test_ops.py tests/test_nn.py tests/test_trainer.py

# All 2^32 float32 inputs of each function of csrc/kernels/vmath.h on every ISA level; the log is build/sweep_vmath.log.
sweep: install
	$(VENV)/bin/python tests/sweep_vmath.py

bench: install $(PEERS)/bin/python
	$(PEERS)/bin/python $(PIP) -r bench/requirements-peers.txt
	mkdir -p bench/results
	for task in call dense train_step; do \
	    $(VENV)/bin/python bench/bench_$$task.py --json bench/results/$$task.json --markdown bench/results/$$task.md || exit 1; \
	done
	$(VENV)/bin/python bench/plot.py bench/results/call.json bench/results/dense.json bench/results/train_step.json

lint: $(VENV)/.ready
	$(VENV)/bin/python $(PIP) --group lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell
	$(VENV)/bin/clang-format --dry-run --Werror $(shell git ls-files 'csrc/*.h' 'csrc/*.cpp')

format: $(VENV)/.ready
	$(VENV)/bin/python $(PIP) --group lint
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(shell git ls-files 'csrc/*.h' 'csrc/*.cpp')

.PHONY: install
install: $(VENV)/.ready
	$(VENV)/bin/python $(PIP) $(BUILD) ".[test]"

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) --upgrade "pip>=25.1"
	$(VENV)/bin/python $(PIP) --group build
	touch $@

$(PEERS)/bin/python:
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python $(PIP) --upgrade "pip>=25.1"
	$(PEERS)/bin/python $(PIP) --group build

clean:
	rm -rf build $(VENV) $(PEERS)
