# The two commands: `make run` builds and starts everything, `make test` tests everything.

CARGO ?= cargo

.PHONY: run test bench dist lint fmt codegen proto-gen tidy deps help

run: ## Build and start Portico on its embedded defaults
	$(CARGO) run --quiet --profile quick --package portico --

test: deps ## Run all tests (Rust on SQLite and on a private PostgreSQL + Redis, SDKs, real clients)
	scripts/test.sh

deps: ## Install what the tests need (as root on Debian; otherwise say what is missing)
	scripts/install-test-deps.sh

bench: ## Run every benchmark beside its peers
	$(CARGO) xtask bench all

dist: ## Build the small release binary
	$(CARGO) xtask dist

lint: ## Lints and formatting, as CI runs them
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## Format everything
	$(CARGO) fmt --all

codegen: ## Write generated files anew
	$(CARGO) xtask codegen

proto-gen: ## Generate everything from proto/ and check it against the last release
	$(CARGO) build --quiet --package portico-proto
	$(CARGO) xtask codegen

tidy: ## Check the rules of the house
	$(CARGO) xtask tidy

help: ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-10s %s\n", $$1, $$2}'
