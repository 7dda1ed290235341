# make build     bin/fairlead
# make lab       a whole LVS-DR network on this machine: build it, watch it, take it down
# make test      all tests, with what they need installed; as root, else some are skipped
# make oracle    a real kernel's IPVS and fairlead, side by side: SEEDS=200 random scenarios, from seed FIRST=n on, and the recorded ones; SEED=n repeats one
# make lint      gofmt, go vet, staticcheck
# make generate  the Go code of the API and the BPF objects, again
# make bench     the data plane's cost per packet

GO ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X github.com/fairlead-lb/fairlead/internal/cli.version=$(VERSION)

SEEDS ?= 200
ORACLE := $(if $(SEED),-run '^TestRandom$$',-run '^TestRandom$$|^TestKernel')
ORACLE_FLAGS := $(if $(SEED),-seed=$(SEED),-seeds=$(SEEDS) $(if $(FIRST),-first=$(FIRST),-any-seeds) -recorded)

.PHONY: build lab test test-deps oracle lint generate bench clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/fairlead ./cmd/fairlead

lab: build
	bin/fairlead lab

# Two packages at a time: more would take each other's time, and run into limits. Those that take longest begin first; the first one's parallel
# tests wait more than they work. What is held against a clock has the machine for itself.
test: test-deps build
	$(GO) test -count=1 -p 2 -parallel 3 -timeout 20m ./test/e2e ./internal/dataplane ./test/vm $$($(GO) list ./... | grep -v '/test/scale$$')
	$(GO) test -count=1 -timeout 20m ./test/scale

test-deps:
	scripts/test-deps

# As root, as the data plane is.
oracle: test-deps
	$(GO) test -count=1 -v -timeout 60m $(ORACLE) ./test/oracle -args $(ORACLE_FLAGS)

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not gofmt'd:" $$unformatted >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

generate:
	$(GO) generate ./...

bench: build
	bin/fairlead bench

clean:
	rm -rf bin
