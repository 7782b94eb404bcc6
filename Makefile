# Everything a newcomer needs: `make demo` and `make test`, as root. Both set up what they need first, and say what that is.
#
# Made for Debian 12: its own /usr/bin/python3 is enough, and the shim is frozen with it. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON := /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := deploy/constraints.txt
# Stamps tell what is done already; `make clean` forgets them.
BUILD := build
VENV_DONE := $(BUILD)/venv.done
PACKAGES_DONE := $(BUILD)/packages.done
TEST_PACKAGES_DONE := $(BUILD)/test-packages.done
CLUSTER_PACKAGES_DONE := $(BUILD)/cluster-packages.done
SHIM_DONE := $(BUILD)/shim.done

# venv and its pip; compiler, static libpython and what it links with for the shim; `ip` for people.
PACKAGES = python3-venv libpython$(PYTHON_VERSION)-dev gcc libc6-dev libexpat1-dev zlib1g-dev iproute2
# The runtimes and the rival plugins that the tests and the benchmark run for real.
TEST_PACKAGES := containernetworking-plugins podman runc busybox-static iputils-ping
# A Kubernetes cluster of this machine's own: what its nodes run, and what makes images without a registry.
CLUSTER_PACKAGES := etcd-server containerd runc containernetworking-plugins busybox-static iputils-ping buildah debootstrap faketime
PYTHON_VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# Installs those of the named Debian packages that are missing, and says which.
define install_packages
	@missing=(); for package in $(1); do \
	  [[ "$$(dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null || true)" == installed ]] || missing+=($$package); \
	done; \
	if (( $${#missing[@]} )); then \
	  echo "Installing Debian packages: $${missing[*]}"; \
	  [[ $$(id -u) == 0 ]] || { echo "This needs root: run make as root, or install them yourself." >&2; exit 1; }; \
	  install="apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 $${missing[*]}"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  $$install >$(BUILD)/apt.log 2>&1 || { apt-get update -qq && $$install >$(BUILD)/apt.log 2>&1; } \
	    || { tail -n 20 $(BUILD)/apt.log >&2; exit 1; }; \
	fi
endef

define need_root
	@[[ $$(id -u) == 0 ]] || { echo "\`make $@\` makes network namespaces and links: run it as root." >&2; exit 1; }
endef

# Whole systems killed and robbed of their store: minutes each, run by `make test-long`.
LONG := tests/integration/failpoints tests/integration/loss tests/integration/allocator/test_replicated.py
# Of the tests in a cluster, those that `make test-cluster` runs.
CLUSTER := tests/cluster

.PHONY: help test-long test-cluster test-cluster-long conformance conformance-cluster setup setup-test setup-cluster demo test test-failpoints bench bench-cluster fuzz sim lint clean

help: ## this list
	@echo "make TARGET, as root:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 21

setup: $(VENV_DONE) $(SHIM_DONE) ## makes .venv with the orbweaver command and builds the shim; says what it installs
	@:

demo: setup ## the main job: two nodes, twenty pods, every one pings every other; then nothing is left
	$(need_root)
	@$(BIN)/orbweaver demo

test: setup setup-test ## the tests, with real runtimes, kernel and NATS server, in under 10 minutes; PYTEST=--lf: those that failed
	$(need_root)
	@$(BIN)/python -m pytest $(PYTEST) --durations=15 -n 2 --dist loadfile --ignore=tests/cluster --ignore=tests/conformance $(LONG:%=--ignore=%)

test-long: setup setup-test ## what takes longer: kills and losses of a whole system, three servers
	$(need_root)
	@$(BIN)/python -m pytest $(PYTEST) --durations=15 $(LONG)

test-failpoints: setup setup-test ## kills at every failpoint alone, in the middle of 100 attaches: what `make test-long` does in part
	$(need_root)
	@FAILPOINTS=all $(BIN)/python -m pytest tests/integration/failpoints tests/integration/allocator/test_replicated.py

test-cluster: setup setup-cluster ## in a real Kubernetes cluster, nodes as namespaces of this machine; builds what is missing first; CLUSTER=PATHS: a part
	$(need_root)
	@$(BIN)/python -m pytest $(PYTEST) --durations=15 --ignore=tests/cluster/long $(CLUSTER)

test-cluster-long: setup setup-cluster ## what takes longer there: five minutes without API server, a thousand pods
	$(need_root)
	@$(BIN)/python -m pytest $(PYTEST) --durations=15 tests/cluster/long

conformance: setup setup-test ## what users of Spiderpool rely on, case by case, through the real services; last line JSON
	$(need_root)
	@$(BIN)/python -m tests.conformance services

conformance-cluster: setup setup-cluster ## the cases that need a Kubernetes cluster; last line JSON
	$(need_root)
	@$(BIN)/python -m tests.conformance cluster

bench: setup setup-test ## the benchmark beside its rivals, last line JSON; BENCH=--short for the short form
	$(need_root)
	@$(BIN)/python -m tests.bench $(BENCH)

bench-cluster: setup setup-cluster ## what we cost a real cluster, beside macvlan + host-local, last line JSON; BENCH=--short
	$(need_root)
	@$(BIN)/python -m tests.cluster.bench $(BENCH)

fuzz: setup ## a million inputs to every entrance, stops at the first that breaks a promise; FUZZ="--seed TEXT --target NAME …"
	@$(BIN)/python -m tests.fuzz $(FUZZ)

sim: setup ## simulated clusters under faults, from seeds: SEEDS=n START=first; a failing one tells how to run it again
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),100) --first $(or $(START),1)

lint: setup ## format, lint, types, walls between the parts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

clean: ## removes .venv and all that was built; no Debian package
	rm -rf $(VENV) $(BUILD) *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup-test: $(TEST_PACKAGES_DONE)

setup-cluster: setup $(CLUSTER_PACKAGES_DONE)
	@$(BIN)/python -m tests.cluster.build >/dev/null

$(BUILD):
	@mkdir -p $@

$(PACKAGES_DONE): Makefile | $(BUILD)
	@[[ -x $(PYTHON) ]] || { echo "$(PYTHON) is missing: apt-get install python3" >&2; exit 1; }
	$(call install_packages,$(PACKAGES))
	@touch $@

$(TEST_PACKAGES_DONE): Makefile | $(BUILD)
	$(call install_packages,$(TEST_PACKAGES))
	@touch $@

$(CLUSTER_PACKAGES_DONE): Makefile | $(BUILD)
	$(call install_packages,$(CLUSTER_PACKAGES))
	@touch $@

$(VENV_DONE): pyproject.toml $(CONSTRAINTS) $(PACKAGES_DONE)
	@[[ -x $(BIN)/pip ]] || { echo "Making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing orbweaver and the Python packages of $(CONSTRAINTS) into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) -e '.[otlp,kubernetes,test,lint]'
	@touch $@

$(SHIM_DONE): $(wildcard cni/*.py) cni/main.c $(VENV_DONE)
	@echo "Building the shim"
	@$(BIN)/python -m cni.freeze --out $(BUILD)/orbweaver >/dev/null \
	  || $(BIN)/python -m cni.freeze --launcher --out $(BUILD)/orbweaver-python >/dev/null
	@touch $@
