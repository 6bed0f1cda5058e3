# Two commands do all set-up on a fresh Debian 12 or Ubuntu machine: `make demo` and `make test`.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
GEN := $(BIN)/prototxt-gen
READY := $(VENV)/.ready

.PHONY: demo test test-fast test-machines test-all check parts generated golden benchmarks caffe clean

$(READY): setup.py constraints.txt
	./.ci/system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

# The main job on real images, end to end; the report is demo/report.html.
demo: $(READY)
	$(GEN) demo --force

# Real Caffe, built when it is not there; the wheel is cached.
caffe: $(READY)
	$(BIN)/python -c "import caffe" 2>/dev/null || $(GEN) caffe install --apt

# Everything: style, types, and every test, those against real Caffe too.
test: $(READY) caffe check
	PROTOTXT_GEN_REQUIRE_CAFFE=1 GLOG_minloglevel=2 OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# The tests that need neither real Caffe nor much time, for work in between.
test-fast: $(READY)
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not caffe and not slow and not fuzz"

# The numeric tests under five settings of CPU, BLAS and threads; an hour on two cores.
test-machines: $(READY) caffe
	PROTOTXT_GEN_REQUIRE_CAFFE=1 $(BIN)/python -m tests.machines -n auto

# Everything there is, also what takes long.
test-all: test test-machines

# Style, types and import rules only; seconds.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Print the parts of the code and the imports between them; write the tables and the diagram of CONTRIBUTING.md.
parts: $(READY)
	$(BIN)/python -m tests.project.parts

generated: $(READY)
	$(GEN) emit --all -o generated --force

# Record golden tensors from real Caffe: all, or TYPE="Pooling LRN".
golden: caffe
	GLOG_minloglevel=2 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.golden $(TYPE)
ifndef TYPE
	GLOG_minloglevel=2 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.golden.solvers
endif

benchmarks: caffe
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info
