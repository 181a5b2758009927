# Targets document themselves: `make` lists them.

GO            ?= go
VERSION       ?= 0.1.0-dev$(shell git rev-parse --short HEAD 2>/dev/null | sed 's/^/+g/')
GOLANGCI_LINT ?= $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME      ?= 30s
ROUNDS        ?= 5
CHAOS         ?= 3m
REQUESTS      ?=
SEED          ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the program: bin/executor
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/executor ./cmd/executor

.PHONY: run
run: build ## Build, and run everything on this machine with the sample tools
	bin/executor dev --tools configs/tools

.PHONY: test
test: ## Run all tests with the race detector; they need Linux, Go, python3, and some Docker or npm, else these are skipped
	$(GO) vet ./...
	@# Each process with the race detector else sleeps a second before it exits, and tests start hundreds.
	GORACE="atexit_sleep_ms=0 $$GORACE" $(GO) test -race -timeout 15m $(GOTEST_FLAGS) ./...

.PHONY: lint
lint: ## Check format, import rules and common mistakes (the first time it builds the linter)
	$(GOLANGCI_LINT) run ./...

.PHONY: docs
docs: ## Write the generated pages anew: docs/cli-reference.md and docs/configuration.md
	$(GO) test -run '^Test(CLI|Configuration)Reference$$' ./cmd/executor -update

.PHONY: bench
bench: build ## Measure against the bare thing in the same rounds (see docs/performance.md)
	EXECUTOR_BENCH_PROGRAM=$(CURDIR)/bin/executor $(GO) test -run '^$$' -bench . -benchtime $(ROUNDS)x -timeout 30m ./cmd/executor
	$(GO) test -run '^$$' -bench . -benchtime $(ROUNDS)x -timeout 10m ./internal/engines/local
	$(GO) test -run '^$$' -bench . -benchtime $$((6 * $(ROUNDS)))x -timeout 30m ./internal/engines/docker
	$(GO) test -run '^$$' -bench . -benchtime $(ROUNDS)x -timeout 30m ./internal/engines/dagger

.PHONY: fuzz
fuzz: ## Run every fuzz test for FUZZTIME each
	@# Now and then Go takes the end of the time for a failure (context deadline exceeded); a real one has an input, which is kept.
	@set -e; log=$$(mktemp); trap "rm -f $$log" EXIT; \
	once() { $(GO) test -run '^$$' -fuzz "^$$2$$" -fuzztime $(FUZZTIME) $$1 >$$log 2>&1 || { cat $$log; return 1; }; tail -n 2 $$log; }; \
	for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; \
	    once $$package $$target || { grep -q 'context deadline exceeded' $$log && ! grep -q 'Failing input' $$log && once $$package $$target; } || exit 1; \
	  done; \
	done

.PHONY: chaos
chaos: ## Break processes, servers and connections for seven minutes (CHAOS=1: two and a half), see docs/chaos.md
	EXECUTOR_TEST_CHAOS=$(CHAOS) EXECUTOR_TEST_CHAOS_REQUESTS=$(REQUESTS) EXECUTOR_TEST_CHAOS_SEED=$(SEED) \
	  $(GO) test -count=1 -timeout 2h -parallel 2 -v -run TestChaos ./chaos

.PHONY: abuse
abuse: ## Try to get out of runs, in every tier that this machine offers; ATTEMPT=network/loopback for one (see docs/security.md)
	EXECUTOR_TEST_ABUSE=$${EXECUTOR_TEST_ABUSE:-offered} $(GO) test -C abuse -count 1 -timeout 15m -run 'TestAbuse/$(ATTEMPT)' $(GOTEST_FLAGS)

.PHONY: clean
clean: ## Remove what build made
	rm -rf bin
