#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <voxplain/v1/catalog.pb.h>

#include "voxplain/explanation.hpp"
#include "voxplain/retry_policy.hpp"

namespace voxplain {

/// TLS: PEM texts. Without `roots` the system's are trusted; with certificate and key it is mTLS.
struct Tls {
  std::string roots = {};
  std::string certificate = {};
  std::string key = {};
};

/// How a server is reached.
struct ClientOptions {
  /// Nothing: plaintext.
  std::optional<Tls> tls = std::nullopt;
  /// Bearer token, sent with every call. It never goes to another host in plaintext.
  std::string token = {};
  RetryPolicy retry = {};
};

/// What is asked.
struct Request {
  /// Without tensors; what is not set takes the server's default.
  v1::ExplainSpec spec;
  /// One for every modality of the model; labels, baselines, a mask and background cases where methods read them.
  std::vector<Volume> volumes;
  /// How the bytes are cut.
  Chunker chunks = in_order;
  /// The whole explanation, with all its calls, fails when it takes longer.
  std::optional<std::chrono::milliseconds> timeout = std::nullopt;
};

/// Explains cases on one server, over one connection. May be shared by threads; outlives its explanations.
class Client {
 public:
  /// `server` is HOST:PORT. Throws InvalidSpec ACCESS_INVALID where a token would leave this host in plaintext.
  explicit Client(const std::string& server, ClientOptions options = {});
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  ~Client();

  /// Starts an explanation; it runs from its first `next`. Throws InvalidSpec for what can be seen to be wrong without the server.
  Explanation explain(Request request);
  /// What an explanation would cost. Refuses what `explain` would refuse on the spec; sends no voxels. Throws Error.
  v1::EstimateExplanationResponse estimate(const Request& request);
  /// All models of the server. Throws Error.
  std::vector<v1::ModelSummary> models();
  /// One model; an empty version: the highest. Throws Error.
  v1::Model describe(const std::string& name, const std::string& version = "");
  /// All methods with citation, defaults and assumptions. Throws Error.
  std::vector<v1::MethodDescription> methods();

 private:
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

/// A method with every parameter at its default, by its name with hyphens, for example "integrated-gradients". Throws InvalidSpec.
v1::Method make_method(std::string name);

}  // namespace voxplain
