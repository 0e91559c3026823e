# Two commands for everybody: `make demo` and `make test`. They need Python 3.11+ and make, nothing else.
PYTHON ?= python3
.PHONY: demo test bench clean

demo: .venv-demo/ready
	.venv-demo/bin/python examples/demo.py

.venv-demo/ready: pyproject.toml $(shell find core plugins -name "*.py")
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install --quiet --disable-pip-version-check ".[delta,duckdb]"
	touch $@

test: .venv-tox/ready
	.venv-tox/bin/tox run $(TOX_ARGS)

.venv-tox/ready:
	$(PYTHON) -m venv .venv-tox
	.venv-tox/bin/python -m pip install --quiet --disable-pip-version-check "tox>=4.22,<5"
	touch $@

# lakeward beside others, with figures into bench/RESULTS.md; BENCH_ROWS=1000000 for a shorter one
bench: build/bench/lakeward/ready
	build/bench/lakeward/bin/python bench/run.py $(BENCH_ROWS)

build/bench/lakeward/ready: pyproject.toml $(shell find core plugins -name "*.py")
	$(PYTHON) -m venv --clear build/bench/lakeward  # anew, so that no module stays that is gone
	build/bench/lakeward/bin/python -m pip install --quiet --disable-pip-version-check .
	touch $@

clean:
	rm -rf .venv .venv-demo .venv-tox .tox build dist demo
