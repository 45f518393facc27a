# Everything here calls the go command; nothing else is needed to build, test or try Tulle.
.PHONY: soak-certs retries-plot sim build test unit lint bench demo generate
# The same commit gives the same bytes in every folder: no path is in the binary, and no state of the repository but the commit.
build: ; go build -trimpath -o bin/tulle ./cmd/tulle
sbom: ; @go run ./tools/sbom ./cmd/tulle
sim: ; go run ./tools/sim -seeds $(or $(SEEDS),2000) -from $(or $(FROM),0) $(if $(SEEDS),,-cuts)
demo: ; go run ./cmd/tulle demo
retries-plot: ; go run ./tools/sim -retries-plot docs/design/retries.svg
test: ; go run ./tools/check
unit: ; go test ./...
lint: ; go run ./tools/check -only format,vet,staticcheck
bench: build ; go run ./bench -install
generate: ; go generate ./...
soak-certs: ; go run ./tools/check -only build && TULLE_BIN=$(CURDIR)/bin go test -tags e2e,soak ./test/e2e -run TestSoakCerts -v -timeout 30m -soak $(or $(FOR),10m)
