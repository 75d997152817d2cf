#include "voxplain/errors.hpp"

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>

namespace voxplain {
namespace {

constexpr char kDomain[] = "voxplain";

struct Details {
  std::optional<std::string> reason;
  std::string field;
  std::optional<std::chrono::milliseconds> retry_after;
};

Details read_details(const grpc::Status& status) {
  Details found;
  google::rpc::Status held;
  if (!held.ParseFromString(status.error_details())) return found;
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad;
  google::rpc::RetryInfo retry;
  for (const auto& detail : held.details()) {
    if (detail.UnpackTo(&info)) {
      if (info.domain() == kDomain) found.reason = info.reason();
    } else if (detail.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations()) found.field += (found.field.empty() ? "" : ", ") + violation.field();
    } else if (detail.UnpackTo(&retry)) {
      const auto& delay = retry.retry_delay();
      const auto exact = std::chrono::seconds(delay.seconds()) + std::chrono::nanoseconds(delay.nanos());
      found.retry_after = std::chrono::ceil<std::chrono::milliseconds>(exact);
    }
  }
  return found;
}

std::string name_of(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::INVALID_ARGUMENT: return "INVALID_ARGUMENT";
    case grpc::StatusCode::DATA_LOSS: return "DATA_LOSS";
    case grpc::StatusCode::NOT_FOUND: return "NOT_FOUND";
    case grpc::StatusCode::FAILED_PRECONDITION: return "FAILED_PRECONDITION";
    case grpc::StatusCode::RESOURCE_EXHAUSTED: return "RESOURCE_EXHAUSTED";
    case grpc::StatusCode::DEADLINE_EXCEEDED: return "DEADLINE_EXCEEDED";
    case grpc::StatusCode::UNAUTHENTICATED: return "UNAUTHENTICATED";
    case grpc::StatusCode::PERMISSION_DENIED: return "PERMISSION_DENIED";
    default: return "UNKNOWN";
  }
}

}  // namespace

Error::Error(grpc::StatusCode code, Fault fault)
    : std::runtime_error(fault.reason + (fault.field.empty() ? "" : " (" + fault.field + ")") + ": " + fault.message),
      code_(code),
      fault_(std::move(fault)) {}

void Error::raise() const {
  switch (code_) {
    case grpc::StatusCode::INVALID_ARGUMENT: throw InvalidSpec(fault_);
    case grpc::StatusCode::DATA_LOSS: throw ChecksumMismatch(fault_);
    case grpc::StatusCode::NOT_FOUND: throw ModelNotFound(fault_);
    case grpc::StatusCode::FAILED_PRECONDITION: throw UnsupportedByModel(fault_);
    case grpc::StatusCode::RESOURCE_EXHAUSTED: throw LimitExceeded(fault_);
    case grpc::StatusCode::ABORTED: throw CheckpointRefused(fault_);
    case grpc::StatusCode::DEADLINE_EXCEEDED: throw DeadlinePassed(fault_);
    case grpc::StatusCode::CANCELLED: throw Cancelled(fault_);
    case grpc::StatusCode::UNAVAILABLE: throw ServerUnavailable(fault_);
    case grpc::StatusCode::UNAUTHENTICATED: throw Unauthenticated(fault_);
    case grpc::StatusCode::PERMISSION_DENIED: throw PermissionDenied(fault_);
    case grpc::StatusCode::INTERNAL: throw InternalFault(fault_);
    default: throw Error(*this);
  }
}

Error translate(const grpc::Status& status, bool cancelled) {
  if (cancelled) return Cancelled({"CANCELLED", "the explanation was cancelled"});
  auto details = read_details(status);
  if (details.reason) {
    return Error(status.error_code(), {*details.reason, status.error_message(), details.field, details.retry_after});
  }
  switch (status.error_code()) {
    case grpc::StatusCode::UNIMPLEMENTED:
      return InternalFault({"NOT_A_VOXPLAIN_SERVER", "the server does not offer this call: check its address and version"});
    // No server of ours says these without ErrorInfo: they come from the network, in a code that depends on who reset the stream.
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::ABORTED:
      return ServerUnavailable({"CONNECTION_LOST", "the server cannot be reached: check its address and that it is running", "",
                                details.retry_after});
    default:
      return Error(status.error_code(), {name_of(status.error_code()), status.error_message(), "", details.retry_after});
  }
}

}  // namespace voxplain
