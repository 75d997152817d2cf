#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "map_assembly.hpp"
#include "voxplain/events.hpp"
#include "voxplain/retry_policy.hpp"

namespace voxplain {

/// One explanation over as many calls as it takes. Knows no network.
class Conversation {
 public:
  Conversation(v1::ExplainSpec spec, RetryPolicy policy);

  /// Whether the record is there.
  bool finished() const { return record_.has_value(); }
  /// Begins a call: the spec to send in it. A resumed call goes on from the last checkpoint, on the same version.
  v1::ExplainSpec begin();
  /// Takes one message of the server; what is new in it. Throws Error: the server broke the contract, or bytes were changed.
  std::optional<Event> receive(v1::ExplainResponse& response);
  /// Decides what happens after a call ended before the record came. Throws the fault where trying again would not help.
  Resuming recover(const Error& fault);
  /// Everything, once finished.
  Result result() const;

 private:
  using Advance = std::pair<int, std::uint64_t>;

  std::optional<Event> take(const v1::Accepted& accepted);
  std::optional<Event> take(const MapPointer& map);
  std::optional<Event> take(const v1::MethodResult& result);
  std::optional<Event> take(const v1::ExplanationRecord& record);
  void check_digests(const v1::ExplanationRecord& record) const;
  int ended() const;

  v1::ExplainSpec spec_;
  RetryPolicy policy_;
  std::string checkpoint_;
  std::optional<v1::Accepted> accepted_;
  std::optional<v1::Prediction> prediction_;
  std::optional<v1::ExplanationRecord> record_;
  std::map<std::string, v1::MethodResult> results_;
  std::map<std::string, MapPointer> maps_;
  std::map<std::string, std::string> delivered_;
  std::map<std::string, std::string> in_call_;
  MapAssembly assembly_;
  int attempt_ = 0;
  Advance advance_{0, 0};
  Advance advance_at_fault_{0, 0};
  bool started_over_ = false;
};

}  // namespace voxplain
