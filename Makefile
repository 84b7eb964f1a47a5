# Everything is installed in .venv of this checkout. `make` lists the targets.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help

# the onnxruntime wheel reports its use to its maker otherwise; serve.py sets it for the server
export ORT_DISABLE_TELEMETRY := 1

RUNTIME ?= cpu
MODELS ?=
DOWNLOAD ?= medimageparse_3d medimageparse
PRECISION ?= fp32
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
PROBE_PORT ?= 8003
# how tests are spread over processes, a file to each, in the order of tests/conftest.py; empty for one after the other
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder
# Of 9,000 tests with real servers one may fail by chance. It runs once more, and the summary lists it as RERUN: look
# into what stands there twice. Empty to see every failure at once
RERUN ?= --reruns 1 --rerun-show-tracebacks -raR
# what is measured: DEMO takes a few minutes, PUBLISHED about an hour on two cores
VARIANT ?= DEMO
WORK ?= benchmarks/work
HOST ?= 127.0.0.1
HTTP_HOST ?= 127.0.0.1
METRICS_HOST ?= 127.0.0.1
# the gateway beside tritonserver; GATEWAY=0 leaves it out
GATEWAY ?= 1
GATEWAY_PORT ?= 8080
GATEWAY_HOST ?=
GATEWAY_CONFIG ?=
# bytes of features that each image encoder on a CPU keeps; 0 for none, empty for what its configuration says
FEATURE_CACHE ?=
# a line for each request: off, text, or json, which is the usual
ACCESS_LOG ?=
TLS_CERTIFICATE ?=
TLS_KEY ?=
TLS_CLIENT_CA ?=
LOCK_FLAGS ?=

# a supported Python that really runs (a pyenv shim may exist for one that is not installed)
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
DEMO := demo/medimageparse_demo
# the distributions in folders of their own, each after those that it needs; the root's (export, demo) comes last
DISTRIBUTIONS := contract serving client gateway
EDITABLE := $(DISTRIBUTIONS:%=-e ./%)
PYPROJECTS := $(DISTRIBUTIONS:%=%/pyproject.toml) pyproject.toml
# in the container tritonserver is on PATH and the system's Python has what the python steps need
CONTAINER := $(shell command -v tritonserver)
SERVE := $(if $(CONTAINER),python3,$(BIN)/python) -m medimageparse_serving.launch
ADDRESSES := --host $(HOST) --http-host $(HTTP_HOST) --metrics-host $(METRICS_HOST) --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --metrics-port $(METRICS_PORT) --probe-port $(PROBE_PORT) \
	$(if $(TLS_CERTIFICATE),--tls-certificate "$(TLS_CERTIFICATE)") $(if $(TLS_KEY),--tls-key "$(TLS_KEY)") \
	$(if $(TLS_CLIENT_CA),--tls-client-ca "$(TLS_CLIENT_CA)") $(if $(FEATURE_CACHE),--feature-cache $(FEATURE_CACHE)) \
	$(if $(ACCESS_LOG),--access-log $(ACCESS_LOG)) \
	$(if $(filter-out 0,$(GATEWAY)),--gateway-port $(GATEWAY_PORT) $(if $(GATEWAY_HOST),--gateway-host $(GATEWAY_HOST)) \
	$(if $(GATEWAY_CONFIG),--gateway-config "$(GATEWAY_CONFIG)"))
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NOT_LOCKED := $(patsubst %,--no-emit-package medimageparse-%,$(DISTRIBUTIONS) triton)  # they are installed from here
LOCK := build/tools/bin/uv pip compile --quiet --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_36 \
	--annotation-style line --custom-compile-command 'make lock' $(NOT_LOCKED) $(LOCK_FLAGS)

.PHONY: help install install-export openvino demo serve serve-demo test test-unit train-demo export-demo download export engines parity perf-analyzer bench fuzz attack soak storm lint lock audit clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: install it, or name it with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv

# tritonserver, what its python steps import, and the client; no torch. Every file is checked by its hash
.venv/serve.stamp: $(PYPROJECTS) requirements.lock | $(BIN)/python
	$(PIP_INSTALL) --no-deps --require-hashes -r requirements.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation $(EDITABLE) -e .
	@touch $@

.venv/export.stamp: .venv/serve.stamp .venv/openvino.stamp
	$(PIP_INSTALL) $(EDITABLE) -e '.[demo,export,test]'
	@touch $@

.venv/openvino.stamp: serving/requirements-openvino.lock .venv/serve.stamp
	$(PIP_INSTALL) --no-deps --require-hashes -r serving/requirements-openvino.lock
	@touch $@

install: .venv/serve.stamp  ## server, client and demo into .venv (about 200 MB, no torch)

install-export: .venv/export.stamp  ## the same and torch, onnx, pytest: for export, training and tests

demo: install  ## segment a phantom CT and a phantom X-ray by sentences under a real tritonserver, on the CPU
	$(BIN)/python -m medimageparse_demo.demo --out demo_output

SERVED_BY = install $(if $(filter cpu-bf16,$(RUNTIME)),openvino)
openvino: .venv/openvino.stamp  ## what RUNTIME=cpu-bf16 needs besides (60 MB)

serve: $(if $(CONTAINER),,$(SERVED_BY))  ## start tritonserver and the gateway: RUNTIME=cpu|cpu-bf16|onnxruntime|tensorrt MODELS=medimageparse_3d,medimageparse
	$(SERVE) --runtime $(RUNTIME) $(if $(MODELS),--models $(MODELS)) $(ADDRESSES)

serve-demo: $(SERVED_BY)  ## the same with the demo checkpoints, from a copy of the repository that goes when it ends
	$(BIN)/python -m medimageparse_demo.serve --runtime $(RUNTIME) $(ADDRESSES)

# without byte code on disk each worker compiles all tests anew, which takes ten seconds
test test-unit: export PYTHONDONTWRITEBYTECODE =
test: install-export  ## the whole test suite, a real tritonserver included
	$(BIN)/python -m pytest $(WORKERS) $(RERUN)

test-unit: install-export  ## the tests that start no server or browser and export no network, in about a minute and a half
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" tests --ignore tests/server

download: install-export  ## fetch the published checkpoints (needs a Hugging Face token and their licence accepted)
	for model in $(DOWNLOAD); do $(BIN)/python -m medimageparse download --model $$model --folder checkpoints || exit 1; done

export: install-export  ## model.onnx of a model's three networks: CHECKPOINT=checkpoints/biomedparse_v2.ckpt PRECISION=fp32|fp16 CHECK_ENGINE=1
	@test -n "$(CHECKPOINT)" || { echo "say which checkpoint: make export CHECKPOINT=checkpoints/biomedparse_v2.ckpt"; exit 1; }
	$(BIN)/python -m medimageparse export --checkpoint "$(CHECKPOINT)" --precision $(PRECISION) --repository model_repository $(if $(CHECK_ENGINE),--check-engine)

engines:  ## model.plan from model.onnx, on the GPU that will serve, in a container with tensorrt (see README)
	PYTHONPATH=contract:export:serving python3 -m medimageparse engines --repository model_repository

FILES ?= tests/data/v2_post_small.npz
parity: install-export  ## our code against tensors recorded from the originals: FILES="a.npz b.npz" PARITY_FLAGS=--onnx
	PYTHONPATH=tests $(BIN)/python -m parity $(FILES) $(PARITY_FLAGS)

train-demo: install-export  ## train the demo checkpoints on phantoms (about an hour on two cores)
	$(BIN)/python -m medimageparse_demo.train
	$(BIN)/python -m medimageparse_demo.train_images
	$(MAKE) export-demo

export-demo: install-export  ## write the demos' graphs beside their checkpoints
	$(BIN)/python -m medimageparse export --checkpoint $(DEMO)/weights/medimageparse_demo.safetensors --repository $(DEMO)/weights
	$(BIN)/python -m medimageparse export --checkpoint $(DEMO)/weights_2d/medimageparse_demo_2d.safetensors --repository $(DEMO)/weights_2d

PERF_ANALYZER := build/perf_analyzer/perf_analyzer
$(PERF_ANALYZER): | $(BIN)/python
	benchmarks/get_perf_analyzer.sh $(BIN)/python $(@D)

perf-analyzer: $(PERF_ANALYZER)  ## fetch NVIDIA's perf_analyzer (Debian or Ubuntu, x86-64)

BENCH = --variant $(VARIANT) --work $(WORK)
bench: install-export  ## measure everything: VARIANT=DEMO|PUBLISHED; rows go to benchmarks/results/VARIANT
	$(BIN)/python benchmarks/networks.py $(BENCH)
	$(BIN)/python benchmarks/roofline.py $(BENCH) --engines
	$(BIN)/python benchmarks/stages.py $(BENCH)
	$(BIN)/python benchmarks/scaling.py $(BENCH)
	$(BIN)/python benchmarks/own_time.py $(BENCH)
	if $(MAKE) --no-print-directory perf-analyzer; then $(BIN)/python benchmarks/perf.py $(BENCH); fi
	$(BIN)/python benchmarks/report.py --variant $(VARIANT)

fuzz: install-export  ## the wrong requests of the tests, ten times as many (about ten minutes)
	FUZZ_TIMES=10 $(BIN)/python -m pytest tests/serving/test_fuzz.py tests/server/operations/test_fuzz.py

attack: install-export  ## what is known to end or fill a server, against one that runs here, and what held: ATTACK="--grpc HOST:PORT ..."
	PYTHONPATH=tests $(BIN)/python -m attacks $(ATTACK)

soak: install-export  ## 1000 mixed requests from 8 clients, each compared with what it gets alone
	$(BIN)/python benchmarks/soak.py

storm: install-export  ## four minutes of 8 clients while a process is killed every 15 s
	$(BIN)/python benchmarks/storm.py

lint: install-export  ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy serving/medimageparse_serving gateway/medimageparse_gateway && \
	$(BIN)/mypy --python-version 3.10 contract/medimageparse_contract client/medimageparse_client && \
	for model in model_repository/*/1/*.py; do $(BIN)/mypy $$model || exit 1; done

build/tools/bin/%:
	$(PYTHON) -m venv build/tools
	build/tools/bin/pip install --quiet --disable-pip-version-check $*

lock: build/tools/bin/uv  ## write the lock files after a change of requirements; LOCK_FLAGS=--upgrade for the newest of all
	echo setuptools | $(LOCK) - $(PYPROJECTS) --extra demo --output-file requirements.lock
	$(LOCK) serving/pyproject.toml gateway/pyproject.toml --constraint requirements.lock --output-file serving/requirements.lock
	# only the server binary inside this wheel is used, so none of its Python dependencies are needed
	echo openvino==2026.4.1 | $(LOCK) --no-deps - --output-file serving/requirements-openvino.lock  # no openvino-telemetry
	echo nvidia-pytriton==0.7.0 | $(LOCK) --no-deps --no-header - >> requirements.lock

audit:  ## known vulnerabilities of what the lock files name, where their database can be reached
	@if ! $(MAKE) --silent build/tools/bin/pip-audit; then echo "audit: pip-audit cannot be installed here; nothing was checked"; exit 0; fi; \
	code=0; build/tools/bin/pip-audit --strict --no-deps --disable-pip -r requirements.lock -r serving/requirements-openvino.lock >build/audit.txt 2>&1 || code=$$?; \
	if grep -qE 'could not be audited|ConnectionError|Timeout' build/audit.txt; \
	then echo "audit: the database of vulnerabilities cannot be reached from here; nothing was checked (build/audit.txt)"; \
	else cat build/audit.txt; exit $$code; fi

clean:  ## remove the environment and everything that was built (not checkpoints)
	rm -rf .venv build demo_output
	rm -f model_repository/*/1/{model.onnx,model.plan,manifest.json,networks.json}
