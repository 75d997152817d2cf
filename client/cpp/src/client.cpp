#include "voxplain/client.hpp"

#include <algorithm>
#include <random>

#include <grpcpp/grpcpp.h>
#include <voxplain/v1/catalog.grpc.pb.h>

#include "access.hpp"
#include "explanation_state.hpp"

namespace voxplain {
namespace {

std::shared_ptr<grpc::Channel> connect(const std::string& server, const ClientOptions& options) {
  if (!options.token.empty()) check_token(server, options.tls.has_value());
  grpc::ChannelArguments arguments;
  // Without keepalive a peer that vanished is found after two hours.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  auto credentials = grpc::InsecureChannelCredentials();
  if (options.tls) {
    grpc::SslCredentialsOptions ssl;
    ssl.pem_root_certs = options.tls->roots;
    ssl.pem_cert_chain = options.tls->certificate;
    ssl.pem_private_key = options.tls->key;
    credentials = grpc::SslCredentials(ssl);
  }
  return grpc::CreateCustomChannel(server, credentials, arguments);
}

std::string random_id() {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::random_device draws;
  std::string id;
  for (int place = 0; place < 32; ++place) id += kDigits[draws() % 16];
  return id;
}

v1::ExplainSpec declare(v1::ExplainSpec spec, const std::vector<Payload>& payloads) {
  for (const Payload& payload : payloads) *spec.add_tensors() = payload.header;
  if (spec.request_id().empty()) spec.set_request_id(random_id());
  return spec;
}

}  // namespace

struct Client::Connection {
  Connection(const std::string& server, ClientOptions chosen)
      : options(std::move(chosen)),
        channel(connect(server, options)),
        explain(v1::ExplainService::NewStub(channel)),
        catalog(v1::CatalogService::NewStub(channel)) {}

  template <typename Answer, typename Ask>
  Answer call(Ask ask) const {
    grpc::ClientContext context;
    if (!options.token.empty()) context.AddMetadata("authorization", "Bearer " + options.token);
    Answer answer;
    const grpc::Status status = ask(context, answer);
    if (!status.ok()) translate(status, false).raise();
    return answer;
  }

  ClientOptions options;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::ExplainService::Stub> explain;
  std::unique_ptr<v1::CatalogService::Stub> catalog;
};

Client::Client(const std::string& server, ClientOptions options)
    : connection_(std::make_unique<Connection>(server, std::move(options))) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

Explanation Client::explain(Request request) {
  std::optional<Explanation::State::Clock::time_point> deadline;
  if (request.timeout) deadline = Explanation::State::Clock::now() + *request.timeout;
  auto state = std::make_unique<Explanation::State>(*connection_->explain, connection_->options.token, std::move(request.volumes),
                                                    std::move(request.chunks), deadline);
  state->conversation.emplace(declare(std::move(request.spec), state->payloads), connection_->options.retry);
  return Explanation(std::move(state));
}

v1::EstimateExplanationResponse Client::estimate(const Request& request) {
  v1::EstimateExplanationRequest asked;
  *asked.mutable_spec() = declare(request.spec, make_payloads(request.volumes));
  return connection_->call<v1::EstimateExplanationResponse>([&](grpc::ClientContext& context, auto& answer) {
    return connection_->catalog->EstimateExplanation(&context, asked, &answer);
  });
}

std::vector<v1::ModelSummary> Client::models() {
  std::vector<v1::ModelSummary> found;
  v1::ListModelsRequest asked;
  do {
    const auto page = connection_->call<v1::ListModelsResponse>([&](grpc::ClientContext& context, auto& answer) {
      return connection_->catalog->ListModels(&context, asked, &answer);
    });
    found.insert(found.end(), page.models().begin(), page.models().end());
    asked.set_page_token(page.next_page_token());
  } while (!asked.page_token().empty());
  return found;
}

v1::Model Client::describe(const std::string& name, const std::string& version) {
  v1::GetModelRequest asked;
  asked.set_name(name);
  asked.set_version(version);
  return connection_
      ->call<v1::GetModelResponse>([&](grpc::ClientContext& context, auto& answer) {
        return connection_->catalog->GetModel(&context, asked, &answer);
      })
      .model();
}

std::vector<v1::MethodDescription> Client::methods() {
  const auto answer = connection_->call<v1::ListMethodsResponse>([&](grpc::ClientContext& context, auto& told) {
    return connection_->catalog->ListMethods(&context, v1::ListMethodsRequest(), &told);
  });
  return {answer.methods().begin(), answer.methods().end()};
}

v1::Method make_method(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  v1::Method method;
  const auto* field = v1::Method::descriptor()->FindFieldByName(name);
  if (field == nullptr || field->real_containing_oneof() == nullptr) {
    throw InvalidSpec({"METHOD_UNKNOWN", "no such method; see Client::methods", "methods"});
  }
  method.GetReflection()->MutableMessage(&method, field);
  return method;
}

}  // namespace voxplain
