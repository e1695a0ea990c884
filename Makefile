# Names for the things that one does here; each recipe is a line or two, what it runs does the work.
.DEFAULT_GOAL := help
.PHONY: help demo up down test test-oldest simulate chaos lint manifests control-plane

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Before minutes of work; what the control plane needs is said by its own build.
.PHONY: tools
tools:
	@command -v cargo >/dev/null || { echo 'cargo is not on the PATH: install Rust 1.89 or newer (https://rustup.rs)' >&2; exit 1; }
	@command -v "$${CC:-cc}" >/dev/null || { echo "$${CC:-cc} is not on the PATH: install a C compiler (gcc or clang)" >&2; exit 1; }

demo: tools ## a control plane, a simulated cloud and the operator on this machine, shown step by step; ends by itself
	@.ci/quiet "control plane, minutes the first time" "tests/control-plane/build api-server" \
	  "operator" "cargo build --bins --example demo"
	@cargo run --quiet --example demo

up: tools ## the same without the walkthrough, kept until Ctrl-C or `make down`; prints the KUBECONFIG to use
	@.ci/quiet "control plane, minutes the first time" "tests/control-plane/build" \
	  "operator" "cargo build --bins --example demo"
	@cargo run --quiet --example demo -- up

down: ## ends what `make up` started
	@if [ -e target/up/running ]; then cargo run --quiet --example demo -- down; \
	else echo '`make up` does not run: nothing to end.'; fi

.PHONY: node node-down test-node
node: tools ## a cluster of one real node, with the operator and the simulated cloud as pods; as root, on Linux. ARCHIVE=FILE: another image
	@tests/node/node can
	@.ci/quiet "node, minutes the first time" "tests/control-plane/build node && tests/control-plane/build helm" \
	  "operator" "cargo build --bins"
	@tests/node/node up

node-down: ## ends what `make node` started
	@tests/node/node down

test-node: tools ## the test on a real node alone, with its times; ARCHIVE=FILE: the image of `make image`; ROTATION=1: 12 minutes more
	@tests/node/node can
	@.ci/quiet "node, minutes the first time" "tests/control-plane/build node && tests/control-plane/build helm" \
	  "tests" "cargo test --no-run --test node"
	@cargo test --test node -- --nocapture $(if $(ROTATION),--include-ignored)

test: tools ## every test; what it needs is built or started by itself
	@.ci/quiet "control plane, minutes the first time" "tests/control-plane/build $(node_if_it_runs) && tests/control-plane/build kstatus && tests/control-plane/build helm && tests/control-plane/build prometheus" \
	  "tests" "cargo test --no-run"
	@RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$(test_threads)} cargo test --no-fail-fast

# kubelet and kube-scheduler, where tests/node can run.
node_if_it_runs = $(shell tests/node/node can >/dev/null 2>&1 && echo node)

# More than cores: most tests of the real cluster wait for deadlines and limits.
test_threads = 4

test-oldest: tools ## the cluster tests on the oldest supported Kubernetes, built on demand
	@tests/control-plane/build kstatus >/dev/null
	assets=$$(tests/control-plane/build oldest) && env "$$assets" cargo test --no-fail-fast $(cluster_tests)

# Every test binary that starts a control plane.
cluster_tests = $(shell grep -rlE '(ControlPlane|TestEnv)::' --include='*.rs' tests | sed -nE 's,^tests/([^/]*)/.*,--test \1,p' | sort -u | grep -vx -- '--test support')

simulate: ## SEEDS random schedules (100000), plain, wide and with sets, of crashes, faults and old views in virtual time, and every pair of crashes; SEED=n replays one, WIDE=1 the wide one, SETS=1 the one with sets
	SEED=$(SEED) SEEDS=$(or $(SEEDS),100000) THREADS=$(or $(THREADS),$(shell nproc)) $(if $(SEED),,PAIRS=1) \
	cargo test --release --test simulation $(if $(SEED),$(if $(WIDE),no_wide,$(if $(SETS),no_schedule_of_sets,no_schedule_of_faults))) -- --nocapture --test-threads=1

chaos: ## KILLS (1000) times SIGKILL for the real operator, API server or etcd under churn, and comparisons; SEED=n draws the same again, SETS=1: sets that change their group
	@tests/control-plane/build >/dev/null
	KILLS=$(or $(KILLS),1000) $(if $(SEED),SEED=$(SEED)) cargo test --test chaos $(if $(SETS),change_of_group,killed_at_any_moment) -- --nocapture

# What leads to new code goes to fuzz/target/corpus, what breaks a property to fuzz/artifacts; `make test` replays fuzz/corpus.
.PHONY: fuzz
fuzz: ## TARGET=answer|error|window|id|request|inventory for SECONDS=60, on a nightly compiler with cargo-fuzz
	@mkdir -p fuzz/target/corpus/$(or $(TARGET),answer)
	cargo +nightly fuzz run $(or $(TARGET),answer) fuzz/target/corpus/$(or $(TARGET),answer) fuzz/corpus/$(or $(TARGET),answer) -- \
	  -max_total_time=$(or $(SECONDS),60) -max_len=4096 -timeout=10 -rss_limit_mb=1024

lint: ## format and clippy, any warning an error
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

manifests: ## writes crds/ and docs/reference/ anew from src/, and what is rendered from deploy/chart
	REGENERATE=1 cargo test --quiet --test repository --test chart -- committed_ rendered_files

# mdBook is built once, from crates.io, without its web server.
mdbook = target/mdbook/bin/mdbook
.PHONY: book
book: tools $(mdbook) ## the documentation as a website in target/book
	@$(mdbook) build docs

$(mdbook):
	cargo install --quiet --locked --no-default-features --version 0.5.4 --root target/mdbook --target-dir target/mdbook/build mdbook

.PHONY: image
image: ## the container image, without a daemon: IMAGE=NAME:TAG, PUSH=1, ARCH=arm64; deploy/image/build says more
	@deploy/image/build

.PHONY: plugin
plugin: tools ## kubectl-sgm as one static binary, its archive and its krew manifest, in target/plugin; ARCH=arm64
	@deploy/krew/build

control-plane: ## finds or builds kube-apiserver, etcd and kube-controller-manager; the last line says where
	@tests/control-plane/build

# --- make bench SCENARIO=S1 N=10000 [SEED=1] [LATENCY=30ms] [DOCS=1]: see docs/benchmarks.md
.PHONY: bench
bench: SCENARIO ?= S1
bench: ## measures beside a textbook operator: SCENARIO=S1..S21|takeover|scrape|all|sets|growth|pass|dashboard N=1000
	@cargo bench --quiet --bench scenarios -- $(SCENARIO) $(if $(N),--n=$(N)) $(if $(SEED),--seed=$(SEED)) \
	  $(if $(LATENCY),--latency=$(LATENCY)) $(if $(WORKERS),--textbook-workers=$(WORKERS)) \
	  $(foreach candidate,$(ONLY),--only=$(candidate)) $(foreach argument,$(OPERATOR),--operator=$(argument)) \
	  $(if $(DOCS),--docs)
