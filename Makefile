# `make install`, `make demo` and `make test` each set up what they need first.
PYTHON ?= python3
EXTRAS ?= cpu,rtx,train,dev
DEMO_STEPS ?= 440
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help install demo test lint types format clean

help:
	@echo "make install   a virtual environment in .venv with everything"
	@echo "make demo      train, export, translate a clip, time it: about 8 minutes on 2 cores"
	@echo "make test      lint, types and tests: what CI runs"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt tools/system-packages.sh
	tools/system-packages.sh $(PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
	@echo "installed into .venv; type: . .venv/bin/activate"

demo: install
	rm -rf runs/demo
	$(BIN)/p2p-train --ngf 32 --ndf 16 --lr 8e-4 --steps $(DEMO_STEPS) --out runs/demo
	$(BIN)/p2p-export runs/demo --fp16
	$(BIN)/p2p-scenes runs/demo/street.mp4 --frames 150
	$(BIN)/p2p-live runs/demo/model.onnx --source runs/demo/street.mp4 \
		--sink runs/demo/translated.mp4 --view side-by-side --stats runs/demo/live.jsonl
	$(BIN)/python benchmarks/latency.py runs/demo/model.onnx runs/demo/model.fp16.onnx \
		--source runs/demo/street.mp4 --frames 100 --json runs/demo/latency.json
	@echo
	@echo "look at  runs/demo/translated.mp4  runs/demo/parity.html  runs/demo/samples/"

test: install lint types
	tools/test-packages.sh
	tools/run-tests.sh

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python benchmarks/readme_table.py --check

types: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
