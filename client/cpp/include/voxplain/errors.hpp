#pragma once

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>

#include <grpcpp/support/status.h>

namespace voxplain {

/// What every fault knows.
struct Fault {
  /// UPPER_SNAKE_CASE code that programs may switch on.
  std::string reason;
  /// Plain words for people.
  std::string message;
  /// Path of the field at fault, for example tensors[2].shape; empty where no field is.
  std::string field = {};
  /// After which trying again may help.
  std::optional<std::chrono::milliseconds> retry_after = std::nullopt;
};

/// A fault of the call. Its class tells the kind, `reason` what happened.
class Error : public std::runtime_error {
 public:
  Error(grpc::StatusCode code, Fault fault);
  grpc::StatusCode code() const { return code_; }
  const std::string& reason() const { return fault_.reason; }
  const std::string& field() const { return fault_.field; }
  std::optional<std::chrono::milliseconds> retry_after() const { return fault_.retry_after; }
  /// Throws it as the class of its code.
  [[noreturn]] void raise() const;

 private:
  grpc::StatusCode code_;
  Fault fault_;
};

/// One class for each kind of fault.
template <grpc::StatusCode kCode>
class ErrorOf : public Error {
 public:
  explicit ErrorOf(Fault fault) : Error(kCode, std::move(fault)) {}
};

/// The spec or a tensor is wrong.
using InvalidSpec = ErrorOf<grpc::StatusCode::INVALID_ARGUMENT>;
/// Bytes were changed on their way.
using ChecksumMismatch = ErrorOf<grpc::StatusCode::DATA_LOSS>;
/// No such model or version.
using ModelNotFound = ErrorOf<grpc::StatusCode::NOT_FOUND>;
/// This model cannot do what was asked.
using UnsupportedByModel = ErrorOf<grpc::StatusCode::FAILED_PRECONDITION>;
/// A limit of the server, or its queue is full.
using LimitExceeded = ErrorOf<grpc::StatusCode::RESOURCE_EXHAUSTED>;
/// The checkpoint does not belong to this request.
using CheckpointRefused = ErrorOf<grpc::StatusCode::ABORTED>;
/// The time given has passed.
using DeadlinePassed = ErrorOf<grpc::StatusCode::DEADLINE_EXCEEDED>;
/// The caller cancelled.
using Cancelled = ErrorOf<grpc::StatusCode::CANCELLED>;
/// Shutting down, workers lost, or no connection; trying again helps.
using ServerUnavailable = ErrorOf<grpc::StatusCode::UNAVAILABLE>;
/// No token, or not one that the server knows.
using Unauthenticated = ErrorOf<grpc::StatusCode::UNAUTHENTICATED>;
/// This caller may not do that.
using PermissionDenied = ErrorOf<grpc::StatusCode::PERMISSION_DENIED>;
/// A fault of the server; the message holds an opaque id that its operator finds in the logs.
using InternalFault = ErrorOf<grpc::StatusCode::INTERNAL>;

/// The typed error for the status of a call.
Error translate(const grpc::Status& status, bool cancelled);

}  // namespace voxplain
