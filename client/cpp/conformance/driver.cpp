/// The driver around the C++ client: one request a line in, events out. See tests/conformance/README.md.
#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include "voxplain/client.hpp"

namespace {

using google::protobuf::Struct;
using google::protobuf::Value;
using google::protobuf::util::JsonStringToMessage;
using google::protobuf::util::MessageToJsonString;
using Clock = std::chrono::steady_clock;
namespace v1 = voxplain::v1;

constexpr std::size_t kSmallChunk = 1000;

std::string text(const Struct& from, const std::string& key) {
  const auto found = from.fields().find(key);
  return found == from.fields().end() ? "" : found->second.string_value();
}

void must(bool right, const char* what) {
  if (!right) {
    std::cerr << what << "\n";
    std::exit(1);
  }
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  must(static_cast<bool>(file), "a file of the request cannot be read");
  file.seekg(0, std::ios::end);
  std::string bytes(static_cast<std::size_t>(file.tellg()), '\0');
  file.seekg(0);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

template <typename Number>
std::vector<Number> view(const std::string& bytes) {
  std::vector<Number> out(bytes.size() / sizeof(Number));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(Number));
  return out;
}

voxplain::Voxels voxels(const std::string& data_type, const std::string& bytes) {
  if (data_type == "DATA_TYPE_INT32") return view<std::int32_t>(bytes);
  if (data_type == "DATA_TYPE_INT16") return view<std::int16_t>(bytes);
  if (data_type == "DATA_TYPE_UINT8") return view<std::uint8_t>(bytes);
  return view<float>(bytes);
}

voxplain::Volume read_volume(const Struct& asked) {
  voxplain::Volume volume;
  volume.modality = text(asked, "modality");
  volume.voxels = voxels(text(asked, "data_type"), read_file(text(asked, "file")));
  for (const auto& edge : asked.fields().at("shape").list_value().values()) {
    volume.shape.push_back(static_cast<std::uint32_t>(edge.number_value()));
  }
  voxplain::Affine affine{};
  for (int place = 0; place < 16; ++place) {
    affine[static_cast<std::size_t>(place)] = asked.fields().at("affine").list_value().values(place).number_value();
  }
  volume.affine = affine;
  must(v1::TensorRole_Parse(text(asked, "role"), &volume.role), "unknown role");
  return volume;
}

void interleaved(const std::vector<voxplain::Payload>& payloads, const voxplain::ChunkSink& sink) {
  v1::TensorChunk chunk;
  bool more = true;
  for (std::size_t offset = 0; more; offset += kSmallChunk) {
    more = false;
    for (const auto& payload : payloads) {
      if (offset >= payload.size) continue;
      more = true;
      voxplain::fill_chunk(payload, offset, kSmallChunk, chunk);
      if (!sink(chunk)) return;
    }
  }
}

void close_early(const std::vector<voxplain::Payload>& payloads, const voxplain::ChunkSink& sink) {
  voxplain::in_order({payloads.front()}, sink);
}

void wrong_checksum(const std::vector<voxplain::Payload>& payloads, const voxplain::ChunkSink& sink) {
  v1::TensorChunk chunk;
  voxplain::fill_chunk(payloads.front(), 0, kSmallChunk, chunk);
  chunk.set_crc32c(chunk.crc32c() ^ 1U);
  sink(chunk);
}

voxplain::Chunker uploads(const std::string& name) {
  if (name == "interleaved") return interleaved;
  if (name == "close-early") return close_early;
  if (name == "wrong-checksum") return wrong_checksum;
  return voxplain::in_order;
}

std::string without(const std::string& prefix, const std::string& name) {
  return name.compare(0, prefix.size(), prefix) == 0 ? name.substr(prefix.size()) : name;
}

class Teller {
 public:
  void tell(const std::string& event, Struct fields) const {
    const std::chrono::duration<double> t = Clock::now() - start_;
    set(fields, "event", event);
    set(fields, "t", t.count());
    std::string line;
    must(MessageToJsonString(fields, &line).ok(), "an event is no JSON");
    std::cout << line << "\n" << std::flush;
  }

  static void set(Struct& to, const std::string& key, const std::string& value) {
    (*to.mutable_fields())[key].set_string_value(value);
  }
  static void set(Struct& to, const std::string& key, double value) { (*to.mutable_fields())[key].set_number_value(value); }
  static void flag(Struct& to, const std::string& key, bool value) { (*to.mutable_fields())[key].set_bool_value(value); }

  void operator()(const v1::Accepted& event) const {
    Struct told;
    set(told, "model", event.model());
    set(told, "version", event.version());
    tell("accepted", told);
  }
  void operator()(const v1::Prediction& event) const {
    Struct told;
    set(told, "score", event.score());
    set(told, "target_name", event.target_name());
    tell("prediction", told);
  }
  void operator()(const v1::Progress& event) const {
    Struct told;
    set(told, "stage", without("STAGE_", v1::Progress::Stage_Name(event.stage())));
    set(told, "method_key", event.method_key());
    set(told, "evaluations_done", static_cast<double>(event.evaluations_done()));
    flag(told, "checkpoint", !event.checkpoint().empty());
    set(told, "bytes_received", static_cast<double>(event.bytes_received()));
    set(told, "bytes_total", static_cast<double>(event.bytes_total()));
    tell("progress", told);
  }
  void operator()(const voxplain::MapPointer& event) const {
    Struct told;
    set(told, "method_key", event->header.method_key());
    set(told, "quantity", without("QUANTITY_", v1::Quantity_Name(event->header.quantity())));
    auto* modalities = (*told.mutable_fields())["modalities"].mutable_list_value();
    for (const auto& modality : event->header.modalities()) modalities->add_values()->set_string_value(modality);
    auto* shape = (*told.mutable_fields())["shape"].mutable_list_value();
    for (const auto edge : event->shape) shape->add_values()->set_number_value(edge);
    flag(told, "snapshot", event->header.snapshot());
    set(told, "sha256", event->sha256);
    tell("map", told);
  }
  void operator()(const v1::MethodResult& event) const {
    Struct told;
    set(told, "method_key", event.method_key());
    set(told, "outcome", without("OUTCOME_", v1::Outcome_Name(event.outcome())));
    set(told, "reason", event.reason());
    tell("result", told);
  }
  void operator()(const v1::ExplanationRecord& event) const {
    Struct told;
    set(told, "maps", event.maps_size());
    set(told, "model_digest", event.model_digest());
    tell("record", told);
  }
  void operator()(const voxplain::Resuming& event) const {
    Struct told;
    set(told, "reason", event.fault.reason());
    set(told, "wait_s", static_cast<double>(event.wait.count()) / 1000);
    flag(told, "from_checkpoint", event.from_checkpoint);
    tell("resuming", told);
  }
  void fault(const std::string& kind, const voxplain::Error& error) const {
    Struct told;
    set(told, "kind", kind);
    set(told, "reason", error.reason());
    set(told, "field", error.field());
    if (error.retry_after()) {
      set(told, "retry_after_s", static_cast<double>(error.retry_after()->count()) / 1000);
    } else {
      (*told.mutable_fields())["retry_after_s"].set_null_value(google::protobuf::NULL_VALUE);
    }
    tell("error", told);
  }

 private:
  Clock::time_point start_ = Clock::now();
};

voxplain::ClientOptions options(const Struct& asked) {
  voxplain::ClientOptions chosen;
  chosen.token = text(asked, "token");
  if (!text(asked, "ca_file").empty()) {
    voxplain::Tls tls{read_file(text(asked, "ca_file"))};
    if (!text(asked, "certificate_file").empty()) {
      tls.certificate = read_file(text(asked, "certificate_file"));
      tls.key = read_file(text(asked, "key_file"));
    }
    chosen.tls = tls;
  }
  return chosen;
}

void answer(const Struct& asked) {
  voxplain::Request request;
  std::string spec;
  must(MessageToJsonString(asked.fields().at("spec").struct_value(), &spec).ok(), "the spec is no JSON");
  must(JsonStringToMessage(spec, &request.spec).ok(), "the spec cannot be read");
  for (const auto& volume : asked.fields().at("volumes").list_value().values()) {
    request.volumes.push_back(read_volume(volume.struct_value()));
  }
  request.chunks = uploads(text(asked, "upload"));
  const auto timeout = asked.fields().find("timeout_s");
  if (timeout != asked.fields().end()) {
    request.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(timeout->second.number_value() * 1000));
  }
  voxplain::Client client(text(asked, "server"), options(asked));
  const Teller teller;
  try {
    auto explanation = client.explain(std::move(request));
    for (const voxplain::Event& event : explanation) {
      std::visit(teller, event);
      if (std::holds_alternative<v1::Progress>(event) && text(asked, "cancel_after") == "progress") explanation.cancel();
    }
  } catch (const voxplain::ModelNotFound& error) {
    teller.fault("ModelNotFound", error);
  } catch (const voxplain::InvalidSpec& error) {
    teller.fault("InvalidSpec", error);
  } catch (const voxplain::ChecksumMismatch& error) {
    teller.fault("ChecksumMismatch", error);
  } catch (const voxplain::UnsupportedByModel& error) {
    teller.fault("UnsupportedByModel", error);
  } catch (const voxplain::LimitExceeded& error) {
    teller.fault("LimitExceeded", error);
  } catch (const voxplain::CheckpointRefused& error) {
    teller.fault("CheckpointRefused", error);
  } catch (const voxplain::DeadlinePassed& error) {
    teller.fault("DeadlinePassed", error);
  } catch (const voxplain::Cancelled& error) {
    teller.fault("Cancelled", error);
  } catch (const voxplain::ServerUnavailable& error) {
    teller.fault("ServerUnavailable", error);
  } catch (const voxplain::Unauthenticated& error) {
    teller.fault("Unauthenticated", error);
  } catch (const voxplain::PermissionDenied& error) {
    teller.fault("PermissionDenied", error);
  } catch (const voxplain::InternalFault& error) {
    teller.fault("InternalFault", error);
  } catch (const voxplain::Error& error) {
    teller.fault("VoxplainError", error);
  }
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    Struct asked;
    must(JsonStringToMessage(line, &asked).ok(), "a request is no JSON");
    answer(asked);
    std::cout << R"({"event":"end"})" << std::endl;
  }
}
