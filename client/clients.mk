# Clients in other languages; included by the Makefile at the root. One command each makes its stubs from proto/, its library,
# its example and its conformance driver. What each makes is never committed.
.PHONY: client-tools client-typescript client-go client-cpp client-java conformance

# google/rpc/*.proto, for typed errors, come with googleapis-common-protos; protoc itself with grpcio-tools, or from Debian.
SITE = $(shell $(BIN)/python -c 'import google.rpc, pathlib; print(pathlib.Path(google.rpc.__path__[0]).parents[1])')
PROTOS = $(addprefix voxplain/v1/,tensor.proto method.proto explain.proto catalog.proto)
RPC_PROTOS = google/rpc/status.proto google/rpc/error_details.proto


client-tools: ## Install Debian's toolchains for the clients in Go, C++ and Java (root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(CLIENT_TOOLS) >/dev/null

CLIENT_TOOLS = golang-go golang-google-grpc-dev golang-google-protobuf-dev golang-github-golang-protobuf-1-5-dev \
	cmake g++ protobuf-compiler protobuf-compiler-grpc libgrpc++-dev libprotobuf-dev libssl-dev zlib1g-dev \
	$(CLIENT_TOOLS_JAVA)

# Debian builds its Java packages for the JRE at hand.
CLIENT_TOOLS_JAVA = default-jdk-headless libgrpc-java libprotobuf-java protobuf-compiler-grpc-java-plugin libnetty-java \
	libguava-java libperfmark-java libgeronimo-annotation-1.3-spec-java

# Compilers side by side: as many as memory and the neighbours allow.
JOBS ?= 2

TS := client/typescript
$(TS)/node_modules/.package-lock.json: $(TS)/package-lock.json
	cd $(TS) && npm ci --silent --no-progress
	touch $@

client-typescript: setup $(TS)/node_modules/.package-lock.json ## The TypeScript client: stubs, library, example
	rm -rf $(TS)/src/gen && mkdir -p $(TS)/src/gen
	$(BIN)/python -m grpc_tools.protoc -I proto -I $(SITE) --plugin=protoc-gen-es=$(TS)/node_modules/.bin/protoc-gen-es \
		--es_out=$(TS)/src/gen --es_opt=target=ts,import_extension=js $(PROTOS) $(RPC_PROTOS)
	cd $(TS) && npm run --silent build

# Debian packages Go's libraries as sources in GOPATH layout, and no module proxy is needed for them.
GO := client/go
GO_BUILD = $(abspath $(GO)/build)
GO_RUN = cd $(GO_BUILD)/src/voxplain.dev/voxplain && \
	GO111MODULE=off GOFLAGS=-p=1 GOPATH=$(GO_BUILD):/usr/share/gocode GOCACHE=$(GO_BUILD)/cache go
GO_PACKAGES = voxplain.dev/voxplain voxplain.dev/voxplain/nifti voxplain.dev/voxplain/internal/driver \
	voxplain.dev/voxplain/examples/explaindemo
client-go: setup ## The Go client: stubs, library, example
	mkdir -p $(GO_BUILD)/src/voxplain.dev $(GO_BUILD)/stubs
	ln -sfn $(abspath $(GO)) $(GO_BUILD)/src/voxplain.dev/voxplain
	$(GO_RUN) build -o $(GO_BUILD)/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	$(GO_RUN) build -o $(GO_BUILD)/protoc-gen-go-grpc google.golang.org/grpc/cmd/protoc-gen-go-grpc
	$(BIN)/python -m grpc_tools.protoc -I proto --plugin=protoc-gen-go=$(GO_BUILD)/protoc-gen-go \
		--plugin=protoc-gen-go-grpc=$(GO_BUILD)/protoc-gen-go-grpc --go_out=$(GO_BUILD)/stubs --go-grpc_out=$(GO_BUILD)/stubs $(PROTOS)
	rm -rf $(GO)/v1 && mv $(GO_BUILD)/stubs/voxplain.dev/voxplain/v1 $(GO)/v1
	$(GO_RUN) build -o $(GO_BUILD)/driver voxplain.dev/voxplain/internal/driver
	$(GO_RUN) build -o $(GO_BUILD)/explain_demo voxplain.dev/voxplain/examples/explaindemo

CPP := client/cpp
client-cpp: setup ## The C++ client: stubs, library, example
	cmake -S $(CPP) -B $(CPP)/build -DGOOGLEAPIS_PROTO=$(SITE) -Wno-dev >/dev/null
	cmake --build $(CPP)/build --parallel $(JOBS)

conformance: setup ## Every client through every scenario, against one server; REQUIRE=typescript,go,cpp fails where one is missing
	$(BIN)/python -m tests.conformance --require '$(REQUIRE)'
