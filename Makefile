# make demo   set up everything and run the whole loop on the bundled community
# make test   set up everything and run all tests
# make lint   ruff, mypy strict, import rules
# make bench  measure this machine
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint bench clean

demo: $(STAMP)
	$(BIN)/understudy demo $(ARGS)

test: $(STAMP)
	$(BIN)/pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_architecture.py

bench: $(STAMP)
	$(BIN)/understudy bench recall
	$(BIN)/understudy bench swap
	$(BIN)/understudy bench serve

# torch first and by plain pip: where a CPU build is configured, nothing after it can pull the CUDA packages in.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(LLAMA_FLAGS) $(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf .venv build *.egg-info
