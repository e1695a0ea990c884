# Names for the things that one does here; each recipe is a line or two, what it runs does the work.
.DEFAULT_GOAL := help
.PHONY: help control-plane

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

control-plane: ## finds or builds kube-apiserver, etcd and kube-controller-manager; the last line says where
	@tests/control-plane/build
