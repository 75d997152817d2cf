# Clients in other languages; included by the Makefile at the root. One command each makes its stubs from proto/, its library,
# its example and its conformance driver. What each makes is never committed.
.PHONY: client-tools client-typescript client-go client-cpp client-java client-tests conformance

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
	libnetty-tcnative-java libnetty-tcnative-jni libguava-java libgoogle-gson-java libperfmark-java libgeronimo-annotation-1.3-spec-java

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

# Plain javac: Debian packages gRPC and protobuf as jars, and there is no Maven repository to ask.
JAVA := client/java
JARS = $(addprefix /usr/share/java/,$(addsuffix .jar,grpc-api grpc-context grpc-core grpc-netty grpc-protobuf grpc-protobuf-lite \
	grpc-stub protobuf protobuf-util gson guava failureaccess netty-buffer netty-codec netty-codec-http \
	netty-codec-http2 netty-codec-socks netty-common netty-handler netty-handler-proxy netty-resolver \
	netty-tcnative netty-transport perfmark-api geronimo-annotation-1.3-spec))
# Debian's Netty speaks HTTP/2 over TLS only by OpenSSL, and looks for it under another name than Debian gives it.
JNI = $(abspath $(JAVA)/build/jni)
TCNATIVE = $(firstword $(wildcard /usr/lib/*/jni/libnetty-tcnative.so /usr/lib/jni/libnetty-tcnative.so))
EMPTY :=
CLASSPATH = $(subst $(EMPTY) $(EMPTY),:,$(strip $(wildcard $(JARS))))
client-java: setup ## The Java client: stubs and a thin library
	rm -rf $(JAVA)/build && mkdir -p $(JAVA)/build/stubs $(JAVA)/build/classes $(JNI)
	$(if $(TCNATIVE),cp $(TCNATIVE) $(JNI)/libnetty_tcnative.so)
	protoc -I proto -I $(SITE) --java_out=$(JAVA)/build/stubs --grpc-java_out=$(JAVA)/build/stubs \
		--plugin=protoc-gen-grpc-java=$(shell command -v grpc_java_plugin) $(PROTOS) $(RPC_PROTOS)
	find $(JAVA)/build/stubs -name '*.java' >$(JAVA)/build/stubs.txt
	javac -nowarn -proc:none -encoding UTF-8 -cp $(CLASSPATH) -d $(JAVA)/build/classes @$(JAVA)/build/stubs.txt 2>/dev/null
	javac -Xlint:all,-classfile,-processing,-path -Werror -proc:none -encoding UTF-8 -cp $(JAVA)/build/classes:$(CLASSPATH) \
		-d $(JAVA)/build/classes $(JAVA)/src/dev/voxplain/client/*.java
	printf '#!/bin/sh\nexec java -Xmx2g -Djava.library.path=$(JNI) -cp %s dev.voxplain.client.Driver\n' \
		'$(abspath $(JAVA)/build/classes):$(CLASSPATH)' >$(JAVA)/build/driver
	chmod +x $(JAVA)/build/driver

client-tests: client-typescript client-go client-cpp ## Lint and unit tests of the TypeScript, Go and C++ clients
	cd $(TS) && npm run --silent lint && npm run --silent test
	test -z "$$(gofmt -l $(GO)/*.go $(GO)/nifti $(GO)/internal $(GO)/examples)"
	$(GO_RUN) vet $(GO_PACKAGES)
	$(GO_RUN) test voxplain.dev/voxplain voxplain.dev/voxplain/nifti
	$(CPP)/build/unit_tests

conformance: setup ## Every client through every scenario, against one server; REQUIRE=typescript,go,cpp fails where one is missing
	$(BIN)/python -m tests.conformance --require '$(REQUIRE)'
