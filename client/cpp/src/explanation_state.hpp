#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <voxplain/v1/explain.grpc.pb.h>

#include "conversation.hpp"
#include "voxplain/explanation.hpp"

namespace voxplain {

/// One call: its stream, and the thread that uploads. Destroying it cancels what still runs.
class Call {
 public:
  Call(v1::ExplainService::Stub& stub, std::unique_ptr<grpc::ClientContext> context, const v1::ExplainSpec& spec,
       const std::vector<Payload>& payloads, const Chunker& chunks);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call();

  bool read(v1::ExplainResponse& response) { return stream_->Read(&response); }
  void cancel() { context_->TryCancel(); }
  /// Waits for the end of the call, after `read` has said no.
  grpc::Status finish();

 private:
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ExplainRequest, v1::ExplainResponse>> stream_;
  std::thread upload_;
  bool finished_ = false;
};

struct Explanation::State {
  using Clock = std::chrono::system_clock;

  State(v1::ExplainService::Stub& stub_of, std::string token_of, std::vector<Volume> volumes_of, Chunker chunks_of,
        std::optional<Clock::time_point> deadline_of)
      : stub(stub_of),
        token(std::move(token_of)),
        volumes(std::move(volumes_of)),
        payloads(make_payloads(volumes)),
        chunks(std::move(chunks_of)),
        deadline(deadline_of) {}

  std::unique_ptr<grpc::ClientContext> context() const;
  bool sleep(std::chrono::milliseconds wait);

  v1::ExplainService::Stub& stub;
  std::string token;
  std::vector<Volume> volumes;
  std::vector<Payload> payloads;
  Chunker chunks;
  std::optional<Clock::time_point> deadline;
  std::optional<Conversation> conversation;
  std::chrono::milliseconds wait{0};
  // Guards what `cancel` touches from another thread.
  std::mutex mutex;
  std::condition_variable wake;
  bool cancelled = false;
  std::unique_ptr<Call> call;
};

}  // namespace voxplain
