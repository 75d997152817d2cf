#include "voxplain/explanation.hpp"

#include "explanation_state.hpp"

namespace voxplain {
namespace {

void upload(grpc::ClientReaderWriter<v1::ExplainRequest, v1::ExplainResponse>& stream, const v1::ExplainSpec& spec,
            const std::vector<Payload>& payloads, const Chunker& chunks) {
  v1::ExplainRequest request;
  *request.mutable_spec() = spec;
  bool open = stream.Write(request);
  // A write that fails tells nothing: the status of the call does.
  const ChunkSink sink = [&](v1::TensorChunk& chunk) {
    // Swapped in and out, so that the chunk keeps its memory.
    request.mutable_chunk()->Swap(&chunk);
    open = open && stream.Write(request);
    request.mutable_chunk()->Swap(&chunk);
    return open;
  };
  if (open) chunks(payloads, sink);
  if (open) stream.WritesDone();
}

}  // namespace

Call::Call(v1::ExplainService::Stub& stub, std::unique_ptr<grpc::ClientContext> context, const v1::ExplainSpec& spec,
           const std::vector<Payload>& payloads, const Chunker& chunks)
    : context_(std::move(context)), stream_(stub.Explain(context_.get())) {
  upload_ = std::thread([this, spec, &payloads, &chunks] { upload(*stream_, spec, payloads, chunks); });
}

Call::~Call() {
  if (!finished_) {
    context_->TryCancel();
    v1::ExplainResponse unread;
    while (stream_->Read(&unread)) {
    }
    finish();
  }
}

grpc::Status Call::finish() {
  finished_ = true;
  upload_.join();
  return stream_->Finish();
}

std::unique_ptr<grpc::ClientContext> Explanation::State::context() const {
  auto made = std::make_unique<grpc::ClientContext>();
  if (deadline) made->set_deadline(*deadline);
  if (!token.empty()) made->AddMetadata("authorization", "Bearer " + token);
  return made;
}

bool Explanation::State::sleep(std::chrono::milliseconds length) {
  std::unique_lock<std::mutex> lock(mutex);
  auto until = Clock::now() + length;
  if (deadline) until = std::min(until, *deadline);
  return !wake.wait_until(lock, until, [this] { return cancelled; });
}

Explanation::Explanation(std::unique_ptr<State> state) : state_(std::move(state)) {}
Explanation::Explanation(Explanation&&) noexcept = default;
Explanation& Explanation::operator=(Explanation&&) noexcept = default;
Explanation::~Explanation() = default;

void Explanation::cancel() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->cancelled = true;
  if (state_->call) state_->call->cancel();
  state_->wake.notify_all();
}

Result Explanation::result() {
  while (next()) {
  }
  return state_->conversation->result();
}

std::optional<Event> Explanation::next() {
  State& state = *state_;
  Conversation& conversation = *state.conversation;
  v1::ExplainResponse response;
  for (;;) {
    if (!state.call) {
      if (conversation.finished()) return std::nullopt;
      if (!state.sleep(state.wait)) throw Cancelled({"CANCELLED", "the explanation was cancelled"});
      if (state.deadline && State::Clock::now() >= *state.deadline) {
        throw DeadlinePassed({"DEADLINE_EXCEEDED", "the time given to the explanation has passed"});
      }
      auto call = std::make_unique<Call>(state.stub, state.context(), conversation.begin(), state.payloads, state.chunks);
      const std::lock_guard<std::mutex> lock(state.mutex);
      state.call = std::move(call);
      if (state.cancelled) state.call->cancel();
    }
    std::optional<Error> fault;
    if (state.call->read(response)) {
      try {
        if (auto event = conversation.receive(response)) return event;
        continue;
      } catch (const Error& error) {
        fault = error;
      }
    }
    std::unique_ptr<Call> call;
    bool cancelled = false;
    {
      const std::lock_guard<std::mutex> lock(state.mutex);
      call = std::move(state.call);
      cancelled = state.cancelled;
    }
    if (!fault) {
      const grpc::Status status = call->finish();
      if (conversation.finished()) return std::nullopt;
      fault = status.ok() ? ServerUnavailable({"CONNECTION_LOST", "the stream ended before the record"})
                          : translate(status, cancelled);
    }
    const Resuming resuming = conversation.recover(*fault);
    state.wait = resuming.wait;
    return resuming;
  }
}

}  // namespace voxplain
