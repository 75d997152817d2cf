#pragma once

#include <chrono>
#include <optional>

#include "voxplain/errors.hpp"

namespace voxplain {

/// When a broken call is made again. Explaining changes nothing on the server, so doing it again is always safe.
struct RetryPolicy {
  /// Calls made again in a row without any advance between them; 0: never.
  int attempts = 6;
  /// The same before the server has answered anything at all: its address may be wrong.
  int first_attempts = 1;
  /// Wait before the first of them, doubled each time and shortened at random by up to a half.
  std::chrono::milliseconds first_wait{500};
  /// The longest such wait. A delay that the server names is kept in full up to `patience`.
  std::chrono::milliseconds longest_wait{15'000};
  /// A server that asks for a longer wait is given up.
  std::chrono::milliseconds patience{120'000};

  /// How long to wait before the call is made again; nothing: it shall not be. `attempt` counts from 1 since the last advance,
  /// `answered` tells whether the server has answered anything in this explanation.
  std::optional<std::chrono::milliseconds> wait(const Error& fault, int attempt, bool answered) const;
};

}  // namespace voxplain
