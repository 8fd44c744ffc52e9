# The commands of this project. `make` alone explains them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# One profile for everything: what is tested is what is measured and shipped.
CARGO := scripts/with-rocksdb cargo
BUILD := --release --locked
FUZZ_TARGETS := acl base_tree blobs bundle codec control extent_header frame identity ids journal key metadata node_list object segment_file segment_header superblock talk template_events template_label template_tar wire
FUZZ_SECONDS ?= 60
BENCH_ARGS ?= noise

.PHONY: help test build demo demo-cluster bench nightly fuzz sim chaos deny clean packages rocksdb lint

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

test: lint ## Format, lints as errors, all tests (what CI runs)
	tools=$$(scripts/conformance-tools); ASPFS_CONFORMANCE_TOOLS=$$tools $(CARGO) test $(BUILD) --workspace

build: packages rocksdb ## Build everything (target/release)
	$(CARGO) build $(BUILD) --workspace

demo: build ## Show it on a real Debian: TEMPLATE=tree uses another template (root)
	@command -v debootstrap >/dev/null || [ -n "$(TEMPLATE)" ] || apt-get install -y --no-install-recommends debootstrap
	@TEMPLATE='$(TEMPLATE)' PACKAGE='$(PACKAGE)' scripts/demo
	@WINDOW='$(WINDOW)' scripts/demo-cluster

demo-cluster: build ## The part of it with two nodes: WINDOW=2s uses another window (root)
	@WINDOW='$(WINDOW)' scripts/demo-cluster

bench: packages rocksdb ## Run a benchmark: make bench BENCH_ARGS="noise --rounds 500 --json"
	@$(CARGO) run $(BUILD) -p aspfs-benches --bin aspfs-bench -- $(BENCH_ARGS)

nightly: lint ## As test, with the long tests too
	tools=$$(scripts/conformance-tools); ASPFS_CONFORMANCE_TOOLS=$$tools ASPFS_NIGHTLY=1 $(CARGO) test $(BUILD) --workspace
	scripts/posix-extra cpython

fuzz: packages rocksdb ## Run each fuzz target for FUZZ_SECONDS (60); needs cargo-fuzz
	@command -v cargo-fuzz >/dev/null || { echo 'cargo install cargo-fuzz --locked' >&2; exit 1; }
	cargo fetch --locked --manifest-path fuzz/Cargo.toml
	$(CARGO) run $(BUILD) -p aspfs-tests --example fuzz_seeds -- fuzz/corpus
	for target in $(FUZZ_TARGETS); do \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS); \
	done

SEEDS ?= 2000
sim: packages rocksdb ## Replication over faulty links, nodes and clocks: make sim SEEDS=10000, or SEED=n to replay one
	ASPFS_SIM_SEEDS=$(SEEDS) $(if $(SEED),ASPFS_SIM_SEED=$(SEED)) $(CARGO) test $(BUILD) -p aspfs-tests --test sim -- --nocapture

CHAOS_SECONDS ?= 600
chaos: build ## Three real nodes, drawn faults, every answer held against what is there: make chaos CHAOS_SECONDS=3600 SEED=7 (root)
	ASPFS_CHAOS=$(CHAOS_SECONDS):$(or $(SEED),1) $(CARGO) test $(BUILD) -p aspfs-tests --test cluster whatever -- --nocapture

deny: ## Check licences and banned crates; needs cargo-deny. ADVISORIES=1 fetches the advisory database too
	@command -v cargo-deny >/dev/null || { echo 'cargo install cargo-deny --locked' >&2; exit 1; }
	cargo deny --locked check bans licenses sources $(if $(ADVISORIES),advisories)

clean: ## Remove what cargo built (the RocksDB library stays in its cache)
	cargo clean --locked

lint: packages rocksdb
	cargo fmt --all --check
	$(CARGO) clippy $(BUILD) --workspace --all-targets -- -D warnings

packages:
	@scripts/system-packages

rocksdb: packages
	@scripts/with-rocksdb true
