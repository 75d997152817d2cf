#include "voxplain/retry_policy.hpp"

#include <algorithm>
#include <random>

namespace voxplain {

std::optional<std::chrono::milliseconds> RetryPolicy::wait(const Error& fault, int attempt, bool answered) const {
  const auto asked = fault.retry_after();
  const bool full = fault.code() == grpc::StatusCode::RESOURCE_EXHAUSTED && asked;
  if (fault.code() != grpc::StatusCode::UNAVAILABLE && !full) return std::nullopt;
  const bool unseen = fault.reason() == "CONNECTION_LOST" && !answered;
  const int allowed = unseen ? std::min(attempts, first_attempts) : attempts;
  if (attempt > allowed || (asked && *asked > patience)) return std::nullopt;
  auto backoff = first_wait;
  for (int doubled = 1; doubled < attempt && backoff < longest_wait; ++doubled) backoff *= 2;
  // Many clients that lost one server must not all come back at one moment.
  thread_local std::minstd_rand draws{std::random_device{}()};
  const double share = std::uniform_real_distribution<>(0.5, 1.0)(draws);
  backoff = std::chrono::duration_cast<std::chrono::milliseconds>(std::min(backoff, longest_wait) * share);
  return asked ? std::max(backoff, *asked) : backoff;
}

}  // namespace voxplain
