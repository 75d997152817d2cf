#pragma once

#include <chrono>
#include <iterator>
#include <memory>
#include <optional>

#include "voxplain/chunks.hpp"
#include "voxplain/events.hpp"

namespace voxplain {

/// A running explanation. Destroying it before its end stops the compute. Not for two threads at once, except for `cancel`.
///
///     for (const Event& event : explanation) ...
class Explanation {
 public:
  struct State;
  class Iterator;

  explicit Explanation(std::unique_ptr<State> state);
  Explanation(Explanation&&) noexcept;
  Explanation& operator=(Explanation&&) noexcept;
  ~Explanation();

  /// Waits for the next event; nothing after the record. A lost connection resumes by itself, told by a Resuming event. Throws
  /// Error where the call failed for good.
  std::optional<Event> next();
  /// Stops: the server stops computing within one batch. `next` then throws Cancelled.
  void cancel();
  /// Waits for the end and returns everything. Throws Error.
  Result result();

  Iterator begin();
  Iterator end();

 private:
  std::unique_ptr<State> state_;
};

/// Events one by one, for range-for.
class Explanation::Iterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = Event;
  using difference_type = std::ptrdiff_t;
  using pointer = const Event*;
  using reference = const Event&;

  Iterator() = default;
  explicit Iterator(Explanation& explanation) : explanation_(&explanation) { ++*this; }
  reference operator*() const { return *event_; }
  pointer operator->() const { return &*event_; }
  Iterator& operator++() {
    event_ = explanation_->next();
    return *this;
  }
  bool operator==(const Iterator& other) const { return event_.has_value() == other.event_.has_value(); }
  bool operator!=(const Iterator& other) const { return !(*this == other); }

 private:
  Explanation* explanation_ = nullptr;
  std::optional<Event> event_;
};

inline Explanation::Iterator Explanation::begin() { return Iterator(*this); }
inline Explanation::Iterator Explanation::end() { return Iterator(); }

}  // namespace voxplain
