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

# a supported Python that really runs (a pyenv shim may exist for one that is not installed)
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
DEMO := export/medimageparse_demo
# in the container tritonserver is on PATH and the system's Python has what the python steps need
CONTAINER := $(shell command -v tritonserver)
SERVE := $(if $(CONTAINER),python3,$(BIN)/python) model_repository/serve.py

.PHONY: help install install-export demo serve serve-demo test train-demo export-demo download export engines lint clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: install it, or name it with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv

# Triton's python backend and the client; no torch
.venv/serve.stamp: pyproject.toml model_repository/requirements.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r model_repository/requirements.txt -e '.[demo]'
	# only the server binary inside this wheel is used, so none of its Python dependencies are needed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps nvidia-pytriton==0.7.0
	@touch $@

.venv/export.stamp: .venv/serve.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check -r model_repository/requirements.txt -e '.[demo,export,test]'
	@touch $@

install: .venv/serve.stamp  ## server, client and demo into .venv (about 200 MB, no torch)

install-export: .venv/export.stamp  ## the same and torch, onnx, pytest: for export, training and tests

demo: install  ## segment a phantom CT and a phantom X-ray by sentences under a real tritonserver, on the CPU
	$(BIN)/python -m medimageparse_demo.demo --out demo_output

serve: $(if $(CONTAINER),,install)  ## start tritonserver: RUNTIME=cpu|onnxruntime|tensorrt MODELS=medimageparse_3d,medimageparse
	$(SERVE) --runtime $(RUNTIME) $(if $(MODELS),--models $(MODELS)) --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --metrics-port $(METRICS_PORT)

serve-demo: install  ## the same with the demo checkpoints, from a copy of the repository in build/
	rm -rf build/demo_repository
	$(BIN)/python -m medimageparse_demo.repository build/demo_repository
	$(SERVE) --runtime cpu --repository build/demo_repository --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --metrics-port $(METRICS_PORT)

test: install-export  ## the whole test suite, a real tritonserver included
	$(BIN)/python -m pytest

download: install-export  ## fetch the published checkpoints (needs a Hugging Face token and their licence accepted)
	for model in $(DOWNLOAD); do $(BIN)/python -m medimageparse download --model $$model --folder checkpoints || exit 1; done

export: install-export  ## model.onnx of a model's three networks: CHECKPOINT=checkpoints/biomedparse_v2.ckpt PRECISION=fp32|fp16
	@test -n "$(CHECKPOINT)" || { echo "say which checkpoint: make export CHECKPOINT=checkpoints/biomedparse_v2.ckpt"; exit 1; }
	$(BIN)/python -m medimageparse export --checkpoint $(CHECKPOINT) --precision $(PRECISION) --repository model_repository

engines:  ## model.plan from model.onnx, on the GPU that will serve, in a container with tensorrt (see README)
	PYTHONPATH=export python3 -m medimageparse engines --repository model_repository

train-demo: install-export  ## train the demo checkpoints on phantoms (about an hour on two cores)
	$(BIN)/python -m medimageparse_demo.train
	$(BIN)/python -m medimageparse_demo.train_images
	$(MAKE) export-demo

export-demo: install-export  ## write the demos' graphs beside their checkpoints
	$(BIN)/python -m medimageparse export --checkpoint $(DEMO)/weights/medimageparse_demo.safetensors --repository $(DEMO)/weights
	$(BIN)/python -m medimageparse export --checkpoint $(DEMO)/weights_2d/medimageparse_demo_2d.safetensors --repository $(DEMO)/weights_2d

lint: install-export  ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy client/medimageparse_client model_repository/*/1/[!m]*.py model_repository/serve.py

clean:  ## remove the environment and everything that was built (not checkpoints)
	rm -rf .venv build demo_output
	rm -f model_repository/*/1/{model.onnx,model.plan,manifest.json,networks.json,onnxruntime_model.py}
