# Every task of the project, for people and for CI. Needs GNU make and CPython 3.11 or newer with pip, nothing else.

VENV := .venv
RUN := $(VENV)/bin/python
CORE := $(VENV)/requirements.installed
DEV := $(VENV)/requirements-dev.installed
# Beside it, with libtpu (684 MB, x86 Linux), which would slow every start of JAX on a CPU.
TPU_VENV := .venv-tpu
TPU := $(TPU_VENV)/requirements-tpu.installed
# The first Python that is new enough; `make PYTHON=/path/to/python3.12 install` chooses another.
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
# SkyPilot, and JobSet's schema as Kubeflow publishes it; for a check alone, so pinned by version and not by hash.
CLOUD_VENV := .venv-cloud
CLOUD := $(CLOUD_VENV)/installed
CLOUD_PACKAGES := skypilot==0.14.1 kubeflow-trainer-api==2.3.0
# Apache Beam, which holds back packages that the other environments have newer.
BEAM_VENV := .venv-beam
BEAM := $(BEAM_VENV)/installed
# A Python with PyTorch and transformers, for the parity tests alone.
TORCH_PYTHON ?= python3
# More pytest arguments: `make test ARGS="-k masking"`.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long test-parity tpu-check cloud-check beam-check lint format lock clean

help:  ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

install: $(DEV)  ## make .venv with every pinned requirement, tools for developers included

demo: $(CORE)  ## prepare text, pretrain a small BERT and let it fill masks (2 cores, 4 minutes, no network after the install)
	$(RUN) -m launch.demo

test: $(DEV)  ## run the default tests
	$(RUN) -m pytest -n 2 --dist=loadfile -m "not slow and not multidevice and not shared and not parity and not tpu and not cloud and not beam" $(ARGS)

test-long: $(DEV)  ## run the tests that `make test` leaves out: slow, on 8 faked devices, on shared data
	$(RUN) -m pytest -m "(slow or shared) and not multidevice and not parity and not tpu and not cloud and not beam" $(ARGS)
	XLA_FLAGS="$(XLA_FLAGS) --xla_force_host_platform_device_count=8" $(RUN) -m pytest -m "multidevice" $(ARGS)

test-parity: $(DEV)  ## compare with PyTorch, which runs in TORCH_PYTHON=/path/to/python
	BERT_JAX_TORCH_PYTHON=$(TORCH_PYTHON) $(RUN) -m pytest -m parity $(ARGS)

tpu-check: $(TPU)  ## compile training steps for Cloud TPU slices and hold them to their bounds (no TPU needed, an hour of 2 cores)
	$(TPU_VENV)/bin/python -m pytest -m tpu -p no:xdist $(ARGS)

cloud-check: $(DEV) $(CLOUD)  ## hold the files of launch/cloud against SkyPilot's own parser and JobSet's schema (no account needed)
	BERT_JAX_CLOUD_PYTHON=$(CLOUD_VENV)/bin/python $(RUN) -m pytest -m cloud $(ARGS)

beam-check: $(DEV) $(BEAM)  ## prepare a corpus with Apache Beam and hold it against launch.prepare's; Dataflow's arguments (no account needed)
	BERT_JAX_BEAM_PYTHON=$(BEAM_VENV)/bin/python $(RUN) -m pytest -m beam $(ARGS)

lint: $(DEV)  ## check style, types and spelling
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/pyright
	$(VENV)/bin/codespell

format: $(DEV)  ## mend what the style check can mend
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

lock:  ## pin the newest versions that pyproject.toml allows (needs uv)
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes pyproject.toml -o requirements.txt
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --extra dev pyproject.toml \
	  -c requirements.txt -o requirements-dev.txt
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --extra tpu pyproject.toml \
	  -c requirements.txt -o requirements-tpu.txt
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --extra beam pyproject.toml \
	  -o requirements-beam.txt

clean:  ## remove the environment and the caches; data/ and runs/ stay
	rm -rf $(VENV) $(TPU_VENV) $(CLOUD_VENV) $(BEAM_VENV) .pytest_cache .ruff_cache build

$(TPU): requirements-dev.txt requirements-tpu.txt | $(RUN)
	@echo "Installing the pinned packages and libtpu into $(TPU_VENV) (some minutes the first time)"
	@$(RUN) -m venv $(TPU_VENV)
	@for file in requirements-dev.txt requirements-tpu.txt; do \
	  $(TPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $$file || exit 1; done
	@touch $@

$(BEAM): requirements-beam.txt | $(RUN)
	@echo "Installing Apache Beam and its requirements into $(BEAM_VENV) (some minutes the first time)"
	@$(RUN) -m venv $(BEAM_VENV)
	@$(BEAM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(CLOUD): Makefile | $(RUN)
	$(RUN) -m venv $(CLOUD_VENV)
	@$(CLOUD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(CLOUD_PACKAGES)
	@touch $@

$(RUN):
	@test -n "$(PYTHON)" || { \
	  echo "error: no Python 3.11 or newer was found; install one, or name it: make PYTHON=/path/to/python3.12 install" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is older than Python 3.11; name another: make PYTHON=/path/to/python3.12 install" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Installed again when the lock changed; a pip that was interrupted leaves no stamp.
$(VENV)/%.installed: %.txt | $(RUN)
	@echo "Installing the pinned packages of $< into $(VENV) (some minutes the first time)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@
