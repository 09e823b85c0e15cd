# make demo    train a digit classifier        make bench   compare with the peers: calls, products, steps
# make test    the tests, on every ISA level   make lint    formats, types, spelling
# make docs    draw the pictures of docs/training.md
#
# Each target sets up what it needs: the environment .venv (peers: bench/.venv-peers) and the package, built from this tree.
PYTHON ?= python3
VENV := .venv
PEERS := bench/.venv-peers
# Kept when a build fails half-way, so that the next one goes on from there.
BUILD := --no-build-isolation -C build-dir=build/{wheel_tag}
PIP := -m pip install --quiet --disable-pip-version-check

SOURCES := $(shell find csrc python CMakeLists.txt pyproject.toml README.md LICENSE -type f -not -name '*.pyc')

.PHONY: demo docs test wheel test-wheel test-peers test-no-openmp test-compilers sanitize sweep bench lint format clean

demo: install
	$(VENV)/bin/trainstep train digits

docs: install
	$(VENV)/bin/python docs/pictures.py

# With WHEEL=1: the wheel, in an environment of its own.
ifdef WHEEL
test: test-wheel
else
test: install
	$(VENV)/bin/python tests/run_levels.py -m "not slow and not peers" -q
endif

# The sdist and, made from it in isolation, the wheel; on Linux repaired, so that it brings its own libgomp.
wheel: dist/.built

dist/.built: $(VENV)/.ready $(SOURCES)
	$(VENV)/bin/python $(PIP) --group wheel
	rm -rf dist build/wheel build/wheel-objects
	$(VENV)/bin/python -m build --outdir build/wheel -C build-dir=$(CURDIR)/build/wheel-objects .
	mkdir dist && cp build/wheel/*.tar.gz dist
	if [ "$$(uname)" = Linux ]; then \
	    PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/auditwheel repair --wheel-dir dist build/wheel/*.whl; \
	else cp build/wheel/*.whl dist; fi
	$(VENV)/bin/python tests/check_wheel.py dist/*.whl
	$(VENV)/bin/python tests/weak_symbols.py build/wheel-objects
	touch $@

# The wheel in a new environment, outside the source tree: first with its dependencies alone.
test-wheel: wheel
	$(PYTHON) -m venv --clear build/clean
	mkdir -p build/elsewhere
	build/clean/bin/python $(PIP) dist/*.whl
	cd build/elsewhere && ../clean/bin/trainstep train digits --epochs 2
	build/clean/bin/python $(PIP) "$$(echo dist/*.whl)[test]"
	build/clean/bin/python bench/bench_import.py
	cd build/elsewhere && ../clean/bin/python ../../tests/run_levels.py -m "not slow and not peers" -q

# The wheel beside PyTorch and scikit-learn, and against them.
test-peers: $(PEERS)/bin/python wheel
	$(PEERS)/bin/python $(PIP) --group peers
	$(PEERS)/bin/python $(PIP) --force-reinstall --no-deps dist/*.whl
	mkdir -p build/elsewhere
	cd build/elsewhere && ../../$(PEERS)/bin/python -m pytest -q -m peers ../../tests

# The kernel, trainer and thread tests under clang's sanitizers.
sanitize: $(VENV)/.ready
	$(VENV)/bin/python $(PIP) --group presets
	$(VENV)/bin/python tests/run_preset.py asan tsan

# Everything by clang, and the kernels by g++ for aarch64: without warnings, and without weak symbols outside their level.
test-compilers: $(VENV)/.ready
	$(VENV)/bin/python $(PIP) --group presets
	$(VENV)/bin/python tests/run_preset.py clang
	$(VENV)/bin/python tests/weak_symbols.py build/clang
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH"; cmake --preset aarch64 --log-level=WARNING && cmake --build --preset aarch64
	$(VENV)/bin/python tests/weak_symbols.py build/aarch64 --nm aarch64-linux-gnu-nm

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

# Some 55 minutes, most of them for the 54 products, the 64 layers and losses, and the arrays that fit no cache. DeepSpeed builds itself at its first use.
results = --json bench/results/$(1).json --markdown bench/results/$(1).md
bench: install $(PEERS)/bin/python
	$(PEERS)/bin/python $(PIP) -r bench/requirements-peers.txt
	mkdir -p bench/results
	$(VENV)/bin/python bench/bench_train_step.py $(call results,train_step)
	$(VENV)/bin/python bench/bench_fit.py $(call results,fit)
	$(VENV)/bin/python bench/bench_predict.py $(call results,predict)
	$(VENV)/bin/python bench/bench_call.py $(call results,call)
	$(VENV)/bin/python bench/bench_dense.py --blocks 3 $(call results,dense)
	$(VENV)/bin/python bench/bench_layers.py --blocks 3 $(call results,layers)
	$(VENV)/bin/python bench/bench_optimizers.py --blocks 5 $(call results,optimizers)
	$(VENV)/bin/python bench/plot.py $(patsubst %,bench/results/%.json,train_step fit predict call dense layers optimizers)

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
	rm -rf build dist $(VENV) $(PEERS)
