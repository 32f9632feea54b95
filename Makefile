# make builds and tests, as CI does. make help lists the rest.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := all

GO       ?= go
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 20s

# The race detector needs a C compiler. A machine without one runs the same tests without it.
ifneq ($(shell command -v gcc || command -v clang),)
RACE := -race
endif

.PHONY: all build run redis test sdk test-sdk test-peers race lint bench bench-proxy bench-api cross fresh soak-store soak-shop soak-upgrade soak-reload soak-upstreams soak-ledger soak-redis soak-api fuzz clean help

# The daprd to measure beside, which bench/daprd pins, and where it is kept.
DAPRD ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/loam/daprd@1.18.3/daprd

all: build test ## Build and test, as CI does (what make alone does)

build: ## Build bin/loam
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/loam ./cmd/loam
	@echo "built bin/loam $(VERSION), $$(wc -c <bin/loam | awk '{printf "%.1f", $$1/1e6}') MB"

run: build ## Build, then run the shop of examples/shop until Ctrl-C
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/customer ./examples/shop/customer
	@exec bin/loam dev examples/shop

redis: ## Install the redis-server that tests start (Debian, as root)
	@test/redis/install.sh

test: redis ## Vet and run every test
	@echo "vet"
	@$(GO) vet ./...
	@$(GO) vet -C tools ./apigen/...
	@echo "$(if $(RACE),test with the race detector,test without the race detector: it needs a C compiler$(comma) there is none here)"
	@$(GO) test -C tools ./apigen/...
	@$(GO) test $(RACE) ./...

sdk: ## Install the compilers of the guest SDKs (Debian, as root) and hold the languages to each other
	@test/sdk/install.sh
	@$(GO) vet -tags sdk ./test/sdk ./wasm/... ./examples/layotto-guest
	@$(GO) test -C tools -tags sdk ./apigen
	@$(GO) test -tags sdk ./test/sdk ./wasm/wagi ./wasm/httpwasm ./wasm/proxywasm ./examples/layotto-guest

test-peers: ## Hold the data path against other programs: h2spec, gRPC's interop cases, nginx's verdicts on smuggling, WebSocket libraries, Dapr's encryption and contracts (Debian, as root)
	@test/peers/install.sh
	@$(GO) vet -C test/http2 ./... && $(GO) test -C test/http2 ./...
	@$(GO) vet -C test/crypto ./... && $(GO) test -C test/crypto ./...
	@test/redis/install.sh && $(GO) vet -C test/redis ./... && $(GO) test -C test/redis ./...
	@$(GO) vet -C test/pluggable ./... && $(GO) vet -C test/pluggable/vault ./... && $(GO) test -C test/pluggable ./...
	@$(GO) vet -C test/dapr ./... && $(GO) test -C test/dapr ./...
	@$(GO) vet -tags peers ./test/peers && PATH=$$PATH:/usr/sbin $(GO) test -tags peers ./test/peers
	@$(GO) vet -C test/peers/websocket ./... && $(GO) test -C test/peers/websocket ./...

# -count=1: the programs that these tests run are none of what go looks at before it trusts an earlier result.
test-sdk: build redis $(DAPRD) ## Hold the runtime API against Dapr's SDKs and npm's layotto, unmodified, and against daprd itself (Debian, as root)
	@test/sdk/install.sh
	@$(GO) vet -C test/sdk-dapr ./... && $(GO) test -C test/sdk-dapr -count=1 ./...
	@$(GO) vet -tags sdk ./test/sdk-dapr-js ./test/sdk-layotto ./test/desks && $(GO) test -count=1 -tags sdk ./test/sdk-dapr-js ./test/sdk-layotto ./test/desks
	@$(GO) vet -tags daprd ./dialect/dapr ./test/desks && DAPRD=$(DAPRD) $(GO) test -count=1 -tags daprd -run Daprd ./dialect/dapr ./test/desks

race: ## Run every test with the race detector, or fail where there is no C compiler
	@CGO_ENABLED=1 $(GO) test -race ./...

lint: ## Run golangci-lint, pinned in tools/go.mod
	@$(GO) tool -modfile=tools/go.mod golangci-lint run ./...
	@echo "lint: ok"

# Every benchmark ends with one line a goal, tab-separated: name, value, unit, goal, ok or short.
bench: build ## Measure the binary, its start and memory, and the store
	@$(GO) run -C bench ./base
	@$(GO) run -C bench ./store

bench-proxy: build ## Measure the data path beside nginx, haproxy, Caddy and ReverseProxy (apt-get install nginx-light haproxy caddy wrk nghttp2-client)
	@$(GO) build -C bench -o ../bin/bench-proxy ./proxy
	@bin/bench-proxy -loam bin/loam

# The workerd to measure beside, from npm, and where it is kept.
WORKERD := workerd@1.20261117.1
CACHE   ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/loam/$(WORKERD)

bench-functions: build ## Measure functions beside wazero, V8, node and workerd (make sdk; apt-get install nodejs npm wrk)
	@[ -d $(CACHE)/node_modules ] || npm install --prefix $(CACHE) --ignore-scripts --no-audit --no-fund --silent $(WORKERD)
	@$(GO) build -C bench -o ../bin/bench-functions ./functions
	@bin/bench-functions -loam bin/loam -root . -workerd $$(echo $(CACHE)/node_modules/@cloudflare/workerd-linux-*/bin/workerd)

$(DAPRD):
	@mkdir -p $(@D)
	@$(GO) build -C bench/daprd -tags stablecomponents -o $@ github.com/dapr/dapr/cmd/daprd

bench-api: build $(DAPRD) ## Measure the runtime API beside daprd (apt-get install redis-server)
	@$(GO) build -C bench -o ../bin/bench-api ./api
	@bin/bench-api -loam bin/loam -daprd $(DAPRD)

cross: ## Build and vet for linux/arm64 and darwin/arm64
	@for target in linux/arm64 darwin/arm64; do \
		export CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/}; \
		$(GO) build ./... && $(GO) vet ./... && echo "cross: $$target ok"; \
	done

fresh: ## Prove the README on a minimal Debian 12 (needs root)
	@test/fresh/run.sh

soak-store: ## kill -9 the store 200 times under load and count what is there
	@$(GO) run ./test/soak/store

soak-shop: build ## 1,000 orders while the process is killed five times
	@$(GO) run ./test/soak/shop

soak-reload: build ## 1,000 routes changed every second for five minutes, under load and 10,000 idle connections
	@$(GO) run ./test/soak/reload

soak-upstreams: build ## Kill, hang, slow, reset and cut off upstreams under load (as root; needs ip, tc and iptables)
	@$(GO) build -o bin/soak-upstreams ./test/soak/upstreams
	@bin/soak-upstreams -loam bin/loam

soak-upgrade: build ## 100 hot upgrades in a row under mixed load: nothing fails, breaks, is lost or comes twice
	@$(GO) run ./test/soak/upgrade

soak-ledger: build ## kill -9 twenty times under load, and hold the usage ledger against what was answered
	@$(GO) run ./test/soak/ledger

soak-redis: build redis ## kill -9 redis-server again and again under load: errors while it is gone, nothing lost
	@$(GO) run ./test/soak/redis

soak-hostile: build ## Guests that do their worst for ten minutes beside neighbours (make sdk)
	@$(GO) run ./test/soak/hostile

soak-api: build ## Hostile clients at Dapr's and Layotto's API: clear errors, bounded memory, nothing reached outside its scope
	@$(GO) run ./test/soak/api

soak-chain: build ## 2,000,000 requests through functions that call each other, every body verified (make sdk)
	@$(GO) run ./test/soak/chain

fuzz: ## Run each fuzz target for FUZZTIME (20s)
	@$(GO) list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r pkg dir; do \
		for f in $$(cat "$$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(f \*testing\.F.*/\1/p'); do \
			echo "fuzz $$pkg $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) "$$pkg" </dev/null; \
		done; \
	done
	@echo "fuzz: ok"

clean: ## Remove what was built
	@rm -rf bin
	@find examples -type d -name build -prune -exec rm -rf {} + 2>/dev/null || true
	@echo "clean: ok"

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

comma := ,
