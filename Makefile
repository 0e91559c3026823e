# `make demo` and `make test` need Python 3.11+ and make, nothing else; `make crash`, `make faults` and `make soak` run long (and want strace).
PYTHON ?= python3
.PHONY: demo test test-radosgw bench bench-lake bench-transforms crash faults soak clean

demo: .venv-demo/ready
	.venv-demo/bin/python examples/demo.py

.venv-demo/ready: pyproject.toml $(shell find core plugins -name "*.py")
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install --quiet --no-compile --disable-pip-version-check ".[delta,duckdb]"
	touch $@

# every test on this Python, in the environment `whole`, so not in that of its version; quick ones on the others that are here
test: .venv-tox/ready
	TOX_SKIP_ENV=$$(.venv-tox/bin/python -c 'import sys; print("py%d%d" % sys.version_info[:2])') .venv-tox/bin/tox run $(TOX_ARGS)

.venv-tox/ready:
	$(PYTHON) -m venv .venv-tox
	.venv-tox/bin/python -m pip install --quiet --disable-pip-version-check "tox>=4.22,<5"
	touch $@

# what the servers of the tests are made of
SERVERS = "moto[server]>=5.1" "azure-cosmos>=4.14,<5" "databricks-sql-connector>=4.2.1,<5" "sqlglot>=30,<31" "thrift>=0.16" "duckdb>=1.4"

# what talks to S3, against Ceph's radosgw; installs it, as root, where it is not there
test-radosgw: .venv-tox/ready
	@command -v radosgw > /dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends radosgw ceph-mon ceph-osd ceph-common; }
	.venv-tox/bin/tox run -e radosgw

# lakeward beside others, with figures into bench/RESULTS.md; BENCH_ROWS=1000000 for a shorter one
bench: build/bench/lakeward/ready
	build/bench/lakeward/bin/python bench/run.py $(BENCH_ROWS)

# the transforms beside the same work done row by row
bench-transforms: build/bench/lakeward/ready
	build/bench/lakeward/bin/python -m pip install --quiet --disable-pip-version-check "pydantic>=2.10,<3"
	build/bench/lakeward/bin/python bench/transforms.py

# delivery: Delta commits, S3 beside the bare library, four sinks beside one; COMMITS=500 for a shorter one
bench-lake: build/bench/lakeward/ready
	build/bench/lakeward/bin/python -m pip install --quiet --disable-pip-version-check ".[delta,s3,databricks,test]" $(SERVERS)
	PYTHONPATH=tests/servers build/bench/lakeward/bin/python bench/lake.py $(COMMITS)

build/bench/lakeward/ready: pyproject.toml $(shell find core plugins -name "*.py")
	$(PYTHON) -m venv --clear build/bench/lakeward  # anew, so that no module stays that is gone
	build/bench/lakeward/bin/python -m pip install --quiet --disable-pip-version-check .
	touch $@

# What `make test` does a tenth of. KILLS, EACH, CUTS, BATCHES, MINUTES and SEED may be given: make crash KILLS=5000 SEED=7
KILLS ?= 1000
EACH ?= 300
CUTS ?= 150
BATCHES ?= 120
MINUTES ?= 30
SEED ?= $(shell date +%s)

crash faults soak: export PYTHONPATH = tests/pipelines:tests/servers

# kills of pipelines with several sinks, then so many for each kind of sink, then power cuts
crash: .venv-crash/ready
	.venv-crash/bin/python -m crash.storm --kills $(KILLS) --seed $(SEED)
	.venv-crash/bin/python -m crash.storm --kills $(EACH) --of each --seed $(SEED)
	.venv-crash/bin/python -m crash.powercut --cuts $(CUTS) --seed $(SEED)

# half of all requests to each sink that is elsewhere are spoiled
faults: .venv-crash/ready
	.venv-crash/bin/python -m crash.network --batches $(BATCHES) --seed $(SEED)

soak: .venv-crash/ready
	for sinks in raw,sums cool,hot bucket,far_table copied items; do \
	  .venv-crash/bin/python -m crash.soak --minutes $(MINUTES) --sinks $$sinks & soaks="$$soaks $$!"; done; \
	  for soak in $$soaks; do wait $$soak || failed=1; done; exit $$failed

.venv-crash/ready: pyproject.toml $(shell find core plugins -name "*.py")
	$(PYTHON) -m venv .venv-crash
	.venv-crash/bin/python -m pip install --quiet --disable-pip-version-check ".[all]" "polars>=1.20" $(SERVERS)
	touch $@

clean:
	rm -rf .venv .venv-crash .venv-demo .venv-tox .tox build dist demo
