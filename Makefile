# Everything that CI runs, minus the installs. `make tools` installs what these need.

GO       ?= go
TOOLS    := $(CURDIR)/.tools/bin
FUZZTIME ?= 100000x
BENCHFLAGS ?= -benchtime 5s
PEERS    := s5cmd restic kopia mc rclone
export PATH := $(TOOLS):$(PATH)

.PHONY: torture bench-storage bench-storage-scale storage-peers modal-suite check precommit fmt vet lint test race bench bench-modal fuzz generate tidy vuln tools hooks examples ts-sdk bench-claude claude-newer

check: precommit lint generate-clean tidy race examples vuln ## all that .ci/run checks

precommit: fmt vet ## the fast part, for the pre-commit hook

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "run gofmt -w on:"; echo "$$out"; exit 1; }

vet:
	$(GO) vet ./...
	GOOS=darwin $(GO) vet ./...
	GOOS=linux GOARCH=arm64 $(GO) vet ./...

lint:
	golangci-lint run ./...

test:
	$(GO) test ./...

race:
	$(GO) test -race ./...

# Benchmarks print a line "FIGURE name value unit ratio=X vs=WHAT" each; they are gathered at the end.
bench:
	@mkdir -p .tools
	$(GO) test -run '^$$' -bench . -timeout 30m $(BENCHFLAGS) ./... | tee .tools/bench.out
	@echo; grep '^FIGURE' .tools/bench.out

# The Modal emulator beside a bare gRPC server, and the Modal driver beside the raw client.
bench-modal:
	@mkdir -p .tools
	$(GO) test -run '^$$' -bench . -timeout 30m $(BENCHFLAGS) ./internal/modalemu ./sandbox/modalbox | tee .tools/bench-modal.out
	@echo; grep '^FIGURE' .tools/bench-modal.out

# Package storage beside backup and sync tools (those of make storage-peers that are
# there, and the AWS CLI) and a tar upload, on one S3 server in memory: under 6 minutes.
# STORAGEFLAGS=-all measures the slow ones in every round too.
bench-storage:
	@mkdir -p .tools
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./storage/internal/peerbench -full -rounds 3 $(STORAGEFLAGS) | tee .tools/bench-storage.out
	@grep -q '^ok' .tools/bench-storage.out && echo && grep '^FIGURE' .tools/bench-storage.out

# How time and memory grow from 10,000 to 1,000,000 files: minutes, and 6 GB of memory.
bench-storage-scale:
	@mkdir -p .tools
	$(GO) test -run '^$$' -bench Scale -benchtime 1x -timeout 60m ./storage/internal/peerbench -scale 1000000 | tee .tools/bench-storage-scale.out
	@grep -q '^ok' .tools/bench-storage-scale.out && echo && grep '^FIGURE' .tools/bench-storage-scale.out

# The official TypeScript SDK reads the same lines beside ours; TS_SDK is its version.
TS_SDK ?= 0.3.328
ts-sdk:
	@mkdir -p .tools/ts-sdk
	@test -d .tools/ts-sdk/node_modules/@anthropic-ai/claude-agent-sdk || \
	  npm install --prefix .tools/ts-sdk --omit=optional --ignore-scripts --no-audit --no-fund --save-exact @anthropic-ai/claude-agent-sdk@$(TS_SDK)

bench-claude: ts-sdk
	@mkdir -p .tools
	$(GO) test -run '^TestDeltaAllocations$$' -v -bench 'Decode|LongLines|Latency|Delta' -timeout 30m $(BENCHFLAGS) ./claude | tee .tools/bench-claude.out
	@echo; grep -o 'FIGURE.*' .tools/bench-claude.out

# The newest CLI through the tests that drive it: they fail on a message that has no type here.
claude-newer:
	@mkdir -p .tools/claude-newer
	npm install --prefix .tools/claude-newer --no-audit --no-fund @anthropic-ai/claude-code@latest
	.tools/claude-newer/node_modules/@anthropic-ai/claude-code/bin/claude.exe --version
	VIVARIUM_CLAUDE=$(CURDIR)/.tools/claude-newer/node_modules/@anthropic-ai/claude-code/bin/claude.exe \
	  $(GO) test -count=1 -timeout 20m -run Real ./claude ./claude/mcpserver

# 50 agents at once over HTTP, while their two servers, the database and the clients are cut.
torture:
	$(GO) test ./internal/torture -count 1 -timeout 30m -v -runs 50 -kills 20 -restarts 5

# Each fuzz target FUZZTIME times: a count, as a duration ends some runs with a bare
# "context deadline exceeded" (golang.org/issue/75804). What is found goes to testdata/fuzz.
fuzz:
	@for dir in $$(git ls-files '*_test.go' | xargs grep -l '^func Fuzz' | xargs -n1 dirname | sort -u); do \
	  for target in $$(grep -h -o '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -d' ' -f2); do \
	    echo "fuzz ./$$dir $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$dir || exit 1; \
	  done; \
	done

generate:
	$(GO) generate ./...

generate-clean: generate
	@git diff --exit-code -- '*drivermock*' || { echo "generated files differ: commit what 'make generate' wrote"; exit 1; }

tidy:
	$(GO) mod tidy -diff

# The two README programs, on the real CLI and the scripted model.
examples:
	$(GO) test -count=1 ./examples/...

# The tests and the examples of Modal's own Go client, unmodified, against the emulator.
modal-suite:
	cd tools/modalsuite && $(GO) run . && $(GO) run . -examples

# Needs the vulnerability data; where that cannot be had it says so and goes on.
vuln:
	@$(GO) tool -modfile=tools/go.mod govulncheck ./... || \
	  { $(GO) tool -modfile=tools/go.mod govulncheck ./... 2>&1 | grep -qE 'dial tcp|lookup|connection refused|no such host|Forbidden|proxyconnect' && \
	    echo "govulncheck: its data cannot be had here; not checked"; }

tools: ## linter and S3 servers, at the versions pinned in tools/
	cd tools/lint && GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	cd tools/s3server && GOBIN=$(TOOLS) $(GO) install github.com/versity/versitygw/cmd/versitygw
	cd tools/rclone && GOBIN=$(TOOLS) $(GO) install github.com/rclone/rclone

storage-peers: ## what make bench-storage compares with, at the versions pinned in tools/storagepeers
	@for peer in $(PEERS); do \
	  ( cd tools/storagepeers/$$peer && GOBIN=$(TOOLS) $(GO) install tool ) || echo "peer $$peer left out: it does not build here"; \
	done

hooks: ## run the fast checks before every commit
	git config core.hooksPath .githooks
