package dev.voxplain.client;

import com.google.protobuf.ByteString;
import dev.voxplain.client.VoxplainException.Kind;
import dev.voxplain.v1.Accepted;
import dev.voxplain.v1.ExplainResponse;
import dev.voxplain.v1.ExplainSpec;
import dev.voxplain.v1.ExplanationRecord;
import dev.voxplain.v1.MapDigest;
import dev.voxplain.v1.MethodResult;
import dev.voxplain.v1.Outcome;
import dev.voxplain.v1.Progress;
import dev.voxplain.v1.Quantity;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;

/** One explanation over as many calls as it takes. Knows no network. */
final class Conversation {
  private static final int ATTEMPTS = 6;
  private static final int FIRST_ATTEMPTS = 1;
  private static final Duration FIRST_WAIT = Duration.ofMillis(500);
  private static final Duration LONGEST_WAIT = Duration.ofSeconds(15);
  private static final Duration PATIENCE = Duration.ofMinutes(2);

  private record Advance(int ended, long done) {
    boolean beyond(Advance other) {
      return ended > other.ended || (ended == other.ended && Long.compareUnsigned(done, other.done) > 0);
    }
  }

  private final ExplainSpec spec;
  private final HashMap<String, MethodResult> results = new HashMap<>();
  private final HashMap<String, String> delivered = new HashMap<>();
  private final HashMap<String, String> inCall = new HashMap<>();
  private ByteString checkpoint;
  private Accepted accepted;
  private boolean predicted;
  private ExplanationRecord record;
  private MapAssembly assembly = new MapAssembly();
  private int attempt;
  private Advance advance = new Advance(0, 0);
  private Advance advanceAtFault = advance;
  private boolean startedOver;

  Conversation(ExplainSpec spec) {
    this.spec = spec;
    this.checkpoint = spec.getCheckpoint();
  }

  boolean finished() {
    return record != null;
  }

  /** Begins a call: the spec to send in it. A resumed call goes on from the last checkpoint, on the same version. */
  ExplainSpec begin() {
    assembly = new MapAssembly();
    inCall.clear();
    ExplainSpec.Builder next = spec.toBuilder().setCheckpoint(checkpoint);
    return accepted == null ? next.build() : next.setVersion(accepted.getVersion()).build();
  }

  /** Takes one message of the server; what is new in it. */
  Optional<Object> receive(ExplainResponse response) {
    return Optional.ofNullable(
        switch (response.getEventCase()) {
          case ACCEPTED -> take(response.getAccepted());
          case PREDICTION -> {
            boolean first = !predicted;
            predicted = true;
            yield first ? response.getPrediction() : null;
          }
          case PROGRESS -> take(response.getProgress());
          case MAP -> {
            assembly.begin(response.getMap());
            yield null;
          }
          case CHUNK -> take(assembly.add(response.getChunk()));
          case METHOD_RESULT -> take(response.getMethodResult());
          case SUMMARY -> take(response.getSummary().getRecord());
          case EVENT_NOT_SET -> null;
        });
  }

  /** Decides what happens after a call ended before the record came; throws the fault where trying again would not help. */
  Resuming recover(VoxplainException fault) {
    if (fault.kind() == Kind.CHECKPOINT_REFUSED && !checkpoint.isEmpty() && !startedOver) {
      startedOver = true;
      checkpoint = ByteString.EMPTY;
      return new Resuming(fault, 1, Duration.ZERO, false);
    }
    attempt = advance.beyond(advanceAtFault) ? 1 : attempt + 1;
    advanceAtFault = advance;
    Duration asked = fault.retryAfter().orElse(Duration.ZERO);
    boolean full = fault.kind() == Kind.LIMIT_EXCEEDED && fault.retryAfter().isPresent();
    boolean unseen = fault.reason().equals(VoxplainException.CONNECTION_LOST) && accepted == null;
    boolean again = (fault.kind() == Kind.SERVER_UNAVAILABLE || full) && attempt <= (unseen ? FIRST_ATTEMPTS : ATTEMPTS);
    if (!again || asked.compareTo(PATIENCE) > 0) {
      throw fault;
    }
    long doubled = Math.min(FIRST_WAIT.toMillis() << (attempt - 1), LONGEST_WAIT.toMillis());
    // Many clients that lost one server must not all come back at one moment.
    Duration backoff = Duration.ofMillis((long) (doubled * ThreadLocalRandom.current().nextDouble(0.5, 1)));
    return new Resuming(fault, attempt, backoff.compareTo(asked) > 0 ? backoff : asked, !checkpoint.isEmpty());
  }

  private Accepted take(Accepted next) {
    Accepted before = accepted;
    if (before != null && !before.getModelDigest().equals(next.getModelDigest())) {
      String message = "the server now holds another model of this version: ask anew";
      throw new VoxplainException(Kind.UNSUPPORTED_BY_MODEL, "MODEL_CHANGED", message, "model");
    }
    accepted = next;
    return before == null ? next : null;
  }

  private Progress take(Progress progress) {
    if (!progress.getCheckpoint().isEmpty()) {
      checkpoint = progress.getCheckpoint();
    }
    note(new Advance(ended(), progress.getEvaluationsDone()));
    return progress;
  }

  private MapReceived take(MapReceived map) {
    if (map == null || map.header().getSnapshot()) {
      return map;
    }
    String key = key(map.header().getMethodKey(), map.header().getQuantity(), map.header().getModalitiesList());
    inCall.put(key, map.sha256());
    // A resumed call sends the maps of ended methods again; only bytes that are new are news.
    return map.sha256().equals(delivered.put(key, map.sha256())) ? null : map;
  }

  private MethodResult take(MethodResult result) {
    MethodResult before = results.put(result.getMethodKey(), result);
    note(new Advance(ended(), 0));
    if (result.getOutcome() == Outcome.OUTCOME_DRAINED) {
      // What comes for it next is news also where its bytes are the same: it belongs to another result.
      delivered.keySet().removeIf(key -> key.startsWith(result.getMethodKey() + "\n"));
    }
    return before != null && before.getOutcome() == result.getOutcome() ? null : result;
  }

  private ExplanationRecord take(ExplanationRecord next) {
    HashMap<String, String> recorded = new HashMap<>();
    for (MapDigest held : next.getMapsList()) {
      if (held.getQuantity() != Quantity.QUANTITY_LABELS) {
        recorded.put(key(held.getMethodKey(), held.getQuantity(), held.getModalitiesList()), held.getSha256());
      }
    }
    if (!recorded.equals(inCall)) {
      String message = "the maps that came are not those of the record: ask again";
      throw new VoxplainException(Kind.CHECKSUM_MISMATCH, "MAP_DIGEST_MISMATCH", message, "record.maps");
    }
    if (ended() < results.size()) {
      // Drained: the server is going away; another goes on from the checkpoint, and this record is not the last.
      return null;
    }
    record = next;
    return next;
  }

  private int ended() {
    return (int) results.values().stream().filter(result -> result.getOutcome() != Outcome.OUTCOME_DRAINED).count();
  }

  private void note(Advance reached) {
    advance = reached.beyond(advance) ? reached : advance;
  }

  private static String key(String methodKey, Quantity quantity, List<String> modalities) {
    return methodKey + "\n" + quantity + "\n" + String.join("\n", modalities);
  }
}
