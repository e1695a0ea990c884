# Names for the things that one does here; each recipe is a line or two, what it runs does the work.
.DEFAULT_GOAL := help
.PHONY: help control-plane

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

control-plane: ## finds or builds kube-apiserver, etcd and kube-controller-manager; the last line says where
	@tests/control-plane/build

# --- make bench SCENARIO=S1 N=10000 [SEED=1] [LATENCY=30ms] [DOCS=1]: see docs/benchmarks.md
.PHONY: bench
bench: SCENARIO ?= S1
bench: ## measures beside a textbook operator: SCENARIO=S1..S10|all|growth|pass N=1000
	@cargo bench --quiet --bench scenarios -- $(SCENARIO) $(if $(N),--n=$(N)) $(if $(SEED),--seed=$(SEED)) \
	  $(if $(LATENCY),--latency=$(LATENCY)) $(if $(WORKERS),--textbook-workers=$(WORKERS)) \
	  $(foreach contender,$(ONLY),--only=$(contender)) $(if $(DOCS),--docs)
