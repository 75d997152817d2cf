package dev.voxplain.client;

import dev.voxplain.v1.ExplainRequest;
import dev.voxplain.v1.ExplainResponse;
import dev.voxplain.v1.ExplainServiceGrpc.ExplainServiceStub;
import dev.voxplain.v1.ExplainSpec;
import dev.voxplain.v1.TensorChunk;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.time.Duration;
import java.util.Iterator;
import java.util.Optional;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** A running explanation: events in the order of the contract. A lost connection resumes by itself, told by a Resuming event. */
public final class Explanation implements AutoCloseable {
  private final ExplainServiceStub stub;
  private final Supplier<Iterator<TensorChunk>> chunks;
  private final Conversation conversation;
  private final long deadlineNanos;
  private Call call;
  private Duration delay = Duration.ZERO;
  private volatile boolean cancelled;

  Explanation(ExplainServiceStub stub, ExplainSpec spec, Supplier<Iterator<TensorChunk>> chunks, Optional<Duration> timeout) {
    this.stub = stub;
    this.chunks = chunks;
    this.conversation = new Conversation(spec);
    this.deadlineNanos = System.nanoTime() + timeout.orElse(Duration.ofDays(365)).toNanos();
  }

  /**
   * Waits for the next event: one of Accepted, Prediction, Progress, MapReceived, MethodResult, ExplanationRecord and Resuming;
   * empty after the record.
   *
   * @throws VoxplainException the call failed for good
   */
  public Optional<Object> next() throws InterruptedException {
    while (true) {
      if (conversation.finished()) {
        hangUp();
        return Optional.empty();
      }
      if (call == null) {
        dial();
      }
      VoxplainException fault;
      Object message = call.messages.take();
      if (message instanceof ExplainResponse response) {
        try {
          Optional<Object> event = conversation.receive(response);
          call.requests.request(1);
          if (event.isPresent()) {
            return event;
          }
          continue;
        } catch (VoxplainException error) {
          fault = error;
        }
      } else if (message instanceof Throwable error) {
        fault = VoxplainException.of(Status.fromThrowable(error), Status.trailersFromThrowable(error), cancelled);
      } else {
        fault = VoxplainException.lost();
      }
      hangUp();
      Resuming resuming = conversation.recover(fault);
      delay = resuming.delay();
      return Optional.of(resuming);
    }
  }

  /** Stops: the server stops computing within one batch. */
  public synchronized void cancel() {
    cancelled = true;
    if (call != null) {
      call.requests.cancel("the caller cancelled", null);
    }
    notifyAll();
  }

  @Override
  public void close() {
    hangUp();
  }

  private synchronized void dial() throws InterruptedException {
    long end = Math.min(System.nanoTime() + delay.toNanos(), deadlineNanos);
    for (long left = end - System.nanoTime(); left > 0 && !cancelled; left = end - System.nanoTime()) {
      TimeUnit.NANOSECONDS.timedWait(this, left);
    }
    if (cancelled) {
      throw VoxplainException.cancelled();
    }
    call = new Call();
    long left = Math.max(0, deadlineNanos - System.nanoTime());
    stub.withDeadlineAfter(left, TimeUnit.NANOSECONDS).explain(call);
    call.send(conversation.begin(), chunks.get());
  }

  private synchronized void hangUp() {
    if (call != null) {
      // After a fault of ours, and when the caller stops, the server must not go on computing.
      call.requests.cancel("the explanation has ended", null);
      call = null;
    }
  }

  /** One call: what came waits in a queue, what goes is written whenever the transport has room. */
  private static final class Call implements ClientResponseObserver<ExplainRequest, ExplainResponse> {
    private static final Object END = new Object();
    private final LinkedBlockingQueue<Object> messages = new LinkedBlockingQueue<>();
    private ClientCallStreamObserver<ExplainRequest> requests;
    private ExplainSpec spec;
    private Iterator<TensorChunk> chunks;

    @Override
    public void beforeStart(ClientCallStreamObserver<ExplainRequest> stream) {
      requests = stream;
      stream.disableAutoRequestWithInitial(2);
      stream.setOnReadyHandler(this::write);
    }

    private void send(ExplainSpec first, Iterator<TensorChunk> rest) {
      synchronized (this) {
        spec = first;
        chunks = rest;
      }
      write();
    }

    private synchronized void write() {
      if (spec != null) {
        requests.onNext(ExplainRequest.newBuilder().setSpec(spec).build());
        spec = null;
      }
      while (chunks != null && requests.isReady()) {
        if (!chunks.hasNext()) {
          chunks = null;
          requests.onCompleted();
          return;
        }
        requests.onNext(ExplainRequest.newBuilder().setChunk(chunks.next()).build());
      }
    }

    @Override
    public void onNext(ExplainResponse response) {
      messages.add(response);
    }

    @Override
    public void onError(Throwable error) {
      messages.add(error);
    }

    @Override
    public void onCompleted() {
      messages.add(END);
    }
  }
}
