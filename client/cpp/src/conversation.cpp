#include "conversation.hpp"

#include <algorithm>

namespace voxplain {
namespace {

template <typename Described>
std::string map_key(const Described& map) {
  std::string key = map.method_key() + "\n" + std::to_string(map.quantity());
  for (const auto& modality : map.modalities()) key += "\n" + modality;
  return key;
}

}  // namespace

MapPointer Result::map(const std::string& method_key, const std::string& modality) const {
  for (const auto& held : maps) {
    const auto& header = held->header;
    const auto& names = header.modalities();
    const bool fits = header.method_key() == method_key && header.quantity() == v1::QUANTITY_ATTRIBUTION;
    if (fits && std::find(names.begin(), names.end(), modality) != names.end()) return held;
  }
  return nullptr;
}

Conversation::Conversation(v1::ExplainSpec spec, RetryPolicy policy)
    : spec_(std::move(spec)), policy_(policy), checkpoint_(spec_.checkpoint()) {}

v1::ExplainSpec Conversation::begin() {
  assembly_ = MapAssembly();
  in_call_.clear();
  v1::ExplainSpec spec = spec_;
  spec.set_checkpoint(checkpoint_);
  if (accepted_) spec.set_version(accepted_->version());
  return spec;
}

std::optional<Event> Conversation::receive(v1::ExplainResponse& response) {
  switch (response.event_case()) {
    case v1::ExplainResponse::kAccepted:
      return take(response.accepted());
    case v1::ExplainResponse::kPrediction: {
      const bool first = !prediction_;
      prediction_ = response.prediction();
      return first ? std::optional<Event>(*prediction_) : std::nullopt;
    }
    case v1::ExplainResponse::kProgress: {
      const auto& progress = response.progress();
      if (!progress.checkpoint().empty()) checkpoint_ = progress.checkpoint();
      advance_ = std::max(advance_, Advance(ended(), progress.evaluations_done()));
      return progress;
    }
    case v1::ExplainResponse::kMap:
      assembly_.begin(response.map());
      return std::nullopt;
    case v1::ExplainResponse::kChunk: {
      const auto map = assembly_.add(response.chunk());
      return map ? take(map) : std::nullopt;
    }
    case v1::ExplainResponse::kMethodResult:
      return take(response.method_result());
    case v1::ExplainResponse::kSummary:
      return take(response.summary().record());
    case v1::ExplainResponse::EVENT_NOT_SET:
      return std::nullopt;
  }
  return std::nullopt;
}

Resuming Conversation::recover(const Error& fault) {
  if (fault.code() == grpc::StatusCode::ABORTED && !checkpoint_.empty() && !started_over_) {
    started_over_ = true;
    checkpoint_.clear();
    return {fault, 1, std::chrono::milliseconds(0), false};
  }
  if (advance_ > advance_at_fault_) attempt_ = 0;
  advance_at_fault_ = advance_;
  attempt_ += 1;
  const auto wait = policy_.wait(fault, attempt_, accepted_.has_value());
  if (!wait) fault.raise();
  return {fault, attempt_, *wait, !checkpoint_.empty()};
}

Result Conversation::result() const {
  if (!record_ || !accepted_ || !prediction_) throw ServerUnavailable({"NOT_FINISHED", "the explanation has not ended"});
  Result result{*accepted_, *prediction_, *record_, results_, {}};
  // Its plans are those that were computed; the one that came early had to estimate some.
  if (record_->has_prediction()) result.prediction = record_->prediction();
  for (const auto& held : record_->maps()) {
    const auto found = maps_.find(map_key(held));
    if (found != maps_.end()) result.maps.push_back(found->second);
  }
  return result;
}

std::optional<Event> Conversation::take(const v1::Accepted& accepted) {
  const bool first = !accepted_;
  if (!first && accepted_->model_digest() != accepted.model_digest()) {
    throw UnsupportedByModel({"MODEL_CHANGED", "the server now holds another model of this version: ask anew", "model"});
  }
  accepted_ = accepted;
  return first ? std::optional<Event>(accepted) : std::nullopt;
}

std::optional<Event> Conversation::take(const MapPointer& map) {
  if (map->header.snapshot()) return map;
  const std::string key = map_key(map->header);
  in_call_[key] = map->sha256;
  maps_[key] = map;
  // A resumed call sends the maps of ended methods again; only bytes that are new are news.
  std::string& delivered = delivered_[key];
  if (delivered == map->sha256) return std::nullopt;
  delivered = map->sha256;
  return map;
}

std::optional<Event> Conversation::take(const v1::MethodResult& result) {
  const auto before = results_.find(result.method_key());
  const bool told = before != results_.end() && before->second.outcome() == result.outcome();
  results_[result.method_key()] = result;
  advance_ = std::max(advance_, Advance(ended(), 0));
  if (result.outcome() == v1::OUTCOME_DRAINED) {
    // What comes for it next is news also where its bytes are the same: it belongs to another result.
    const std::string prefix = result.method_key() + "\n";
    for (auto each = delivered_.begin(); each != delivered_.end();) {
      each = each->first.compare(0, prefix.size(), prefix) == 0 ? delivered_.erase(each) : std::next(each);
    }
  }
  return told ? std::nullopt : std::optional<Event>(result);
}

std::optional<Event> Conversation::take(const v1::ExplanationRecord& record) {
  check_digests(record);
  // Drained: the server is going away; another goes on from the checkpoint, and this record is not the last.
  if (ended() < static_cast<int>(results_.size()) && policy_.attempts > 0) return std::nullopt;
  for (auto each = maps_.begin(); each != maps_.end();) {
    each = in_call_.count(each->first) == 0 ? maps_.erase(each) : std::next(each);
  }
  record_ = record;
  return record;
}

void Conversation::check_digests(const v1::ExplanationRecord& record) const {
  std::map<std::string, std::string> recorded;
  for (const auto& held : record.maps()) {
    if (held.quantity() != v1::QUANTITY_LABELS) recorded[map_key(held)] = held.sha256();
  }
  if (recorded != in_call_) {
    throw ChecksumMismatch({"MAP_DIGEST_MISMATCH", "the maps that came are not those of the record: ask again", "record.maps"});
  }
}

int Conversation::ended() const {
  return static_cast<int>(std::count_if(
      results_.begin(), results_.end(), [](const auto& each) { return each.second.outcome() != v1::OUTCOME_DRAINED; }));
}

}  // namespace voxplain
