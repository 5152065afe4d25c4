# make demo | test | lint | bench | lock.  Needs python3 (3.11 or newer, with venv) and nothing else.
PY ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The stamp's name is a hash of what it stands for: a changed lock installs anew, an equal one does not.
STAMP = $(VENV)/.installed-$(shell cat pyproject.toml requirements.txt | cksum | cut -d' ' -f1)

demo: $(STAMP)
	$(BIN)/samscale study studies/digits_width.py --workdir=runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(STAMP)
	$(BIN)/python -m benchmarks

lock:
	uv pip compile --universal --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
		--extra parquet --extra ray --extra slurm --extra test --extra track pyproject.toml -o requirements.txt

$(STAMP):
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PY) is Python %d.%d; samscale needs 3.11 or newer, as in: make demo PY=python3.12" % sys.version_info[:2])'
	$(PY) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e '.[test]'
	@rm -f $(VENV)/.installed-*
	@touch $@

.PHONY: demo test lint bench lock
