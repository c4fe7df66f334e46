# make demo | make test | make bench: each sets up all it needs in a fresh clone.
# TORCH chooses another build, e.g. make test TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
WHEEL = $$(echo build/wheel/fastnets-*.whl)
KERNEL_TESTS = tests/test_ops.py tests/test_threads.py tests/test_window_accumulate.py tests/test_window_gather.py
PARALLEL = -n 2 --dist worksteal
SOURCES = $(shell find csrc kernels fastnets -type f -not -name '*.pyc') pyproject.toml

.PHONY: demo test bench bench-ops bench-models lint sanitize isa clean
.DELETE_ON_ERROR:

demo: $(VENV)/.package
	$(VENV)/bin/python bench/demo.py

# Tests run in two processes, with one thread each where a test does not choose its own number. Threads of two do
# not spin on the cores that the other process needs: the kernels' tests take half the time.
test isa sanitize: export OMP_NUM_THREADS = 1
test isa sanitize: export OMP_WAIT_POLICY = passive
test: $(VENV)/.test
	$(VENV)/bin/pytest $(PARALLEL) $(PYTEST)

# Timings mean something on an idle machine only; results go to bench/results.
bench: $(VENV)/.bench
	$(VENV)/bin/python bench/demo.py --record
	$(VENV)/bin/python bench/sliding_window.py

# Layers against other libraries: fp32, separable ones in bf16, and our AVX2 level against torch limited to it.
bench-ops: $(VENV)/.bench
	$(VENV)/bin/python bench/ops.py --json build/bench-ops.json
	$(VENV)/bin/python bench/ops.py --dtype bf16 --only separable --json build/bench-ops-bf16.json
	$(VENV)/bin/python bench/ops.py --isa avx2 --json build/bench-ops-avx2.json
	$(VENV)/bin/python bench/tables.py > bench/results/README.md
	$(VENV)/bin/python bench/tuning.py

# Whole networks against other libraries; MODELS="--minutes 12 --peers openvino,ncnn" bounds it.
bench-models: $(VENV)/.bench
	$(VENV)/bin/python bench/engine.py
	$(VENV)/bin/python bench/models.py $(MODELS)
	$(VENV)/bin/python bench/models.py --dtype bf16 $(MODELS)
	$(VENV)/bin/python bench/tables.py > bench/results/README.md

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	find csrc -name '*.cpp' -o -name '*.h' | xargs $(VENV)/bin/clang-format --dry-run -Werror

# The kernel tests at every ISA level that this machine has.
isa: $(VENV)/.test
	levels=$$($(VENV)/bin/python -P -c 'from fastnets import _C; print(*_C.available_isas())') && \
	for level in $$levels; do \
	  echo "FASTNETS_ISA=$$level" && FASTNETS_ISA=$$level $(VENV)/bin/pytest -q $(PARALLEL) $(KERNEL_TESTS) || exit 1; \
	done

# The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, at the level that this machine chooses
# (FASTNETS_ISA=avx2 make sanitize: at that), the only one compiled; what torch computes is left out. The base
# interpreter, -P and -S: the venv's own fastnets and the source folder would hide the sanitized build, and what is
# installed beside the base interpreter (a pytest plugin, say) is not ours.
sanitize: $(VENV)/.test
	level=$$($(VENV)/bin/python -P -c 'from fastnets import _C; print(_C.active_isa())') && \
	$(PIP) install --upgrade --no-deps --target build/sanitize/site -C build-dir=build/sanitize/cmake \
	  -C cmake.define.FASTNETS_SANITIZE=ON -C cmake.define.FASTNETS_ONLY=$$level .
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 \
	PYTHONPATH=build/sanitize/site:$$($(VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])') \
	$$($(VENV)/bin/python -c 'import sys; print(sys._base_executable)') -P -S -m pytest -q -p no:cacheprovider \
	  $(PARALLEL) $(KERNEL_TESTS) -k 'not torch'

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	$(PIP) install $(TORCH)
	touch $@

# One wheel, compiled once, is what everything here installs and tests.
$(VENV)/.wheel: $(VENV)/.torch $(SOURCES)
	rm -rf build/wheel
	$(PIP) wheel --no-deps --wheel-dir build/wheel .
	touch $@

$(VENV)/.package: $(VENV)/.wheel
	$(PIP) install --no-deps --force-reinstall $(WHEEL)
	$(PIP) install "$(WHEEL)[all]"
	touch $@

$(VENV)/.test: $(VENV)/.package
	$(PIP) install "$(WHEEL)[all,test]"
	touch $@

$(VENV)/.bench: $(VENV)/.package
	$(PIP) install "$(WHEEL)[all,bench]"
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) install "$(WHEEL)[dev]"
	touch $@

clean:
	rm -rf $(VENV) build demo-output
