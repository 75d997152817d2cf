package dev.voxplain.client;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.protobuf.lite.ProtoLiteUtils;
import java.time.Duration;
import java.util.EnumSet;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;

/** A fault of a call: its kind, a stable reason, and where there is one the field at fault. */
public final class VoxplainException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** What kinds of faults there are, by their gRPC code. */
  public enum Kind {
    INVALID_SPEC(Status.Code.INVALID_ARGUMENT),
    CHECKSUM_MISMATCH(Status.Code.DATA_LOSS),
    MODEL_NOT_FOUND(Status.Code.NOT_FOUND),
    UNSUPPORTED_BY_MODEL(Status.Code.FAILED_PRECONDITION),
    LIMIT_EXCEEDED(Status.Code.RESOURCE_EXHAUSTED),
    CHECKPOINT_REFUSED(Status.Code.ABORTED),
    DEADLINE_PASSED(Status.Code.DEADLINE_EXCEEDED),
    CANCELLED(Status.Code.CANCELLED),
    SERVER_UNAVAILABLE(Status.Code.UNAVAILABLE),
    UNAUTHENTICATED(Status.Code.UNAUTHENTICATED),
    PERMISSION_DENIED(Status.Code.PERMISSION_DENIED),
    INTERNAL_FAULT(Status.Code.INTERNAL),
    UNKNOWN(Status.Code.UNKNOWN);

    private final Status.Code code;

    Kind(Status.Code code) {
      this.code = code;
    }

    private static Kind of(Status.Code code) {
      for (Kind kind : values()) {
        if (kind.code == code) {
          return kind;
        }
      }
      return UNKNOWN;
    }
  }

  static final String CONNECTION_LOST = "CONNECTION_LOST";

  // No server of ours says these without ErrorInfo: they come from the network, in a code that depends on who reset the stream.
  private static final Set<Status.Code> LOST =
      EnumSet.of(Status.Code.UNAVAILABLE, Status.Code.INTERNAL, Status.Code.UNKNOWN, Status.Code.CANCELLED, Status.Code.ABORTED);
  private static final Metadata.Key<com.google.rpc.Status> DETAILS =
      Metadata.Key.of(
          "grpc-status-details-bin", ProtoLiteUtils.metadataMarshaller(com.google.rpc.Status.getDefaultInstance()));

  private final Kind kind;
  private final String reason;
  private final String field;
  private final transient Optional<Duration> retryAfter;

  VoxplainException(Kind kind, String reason, String message, String field) {
    this(kind, reason, message, field, Optional.empty());
  }

  private VoxplainException(Kind kind, String reason, String message, String field, Optional<Duration> retryAfter) {
    super(message);
    this.kind = kind;
    this.reason = reason;
    this.field = field;
    this.retryAfter = retryAfter;
  }

  public Kind kind() {
    return kind;
  }

  /** UPPER_SNAKE_CASE code that programs may switch on. */
  public String reason() {
    return reason;
  }

  /** Path of the field at fault; empty where no field is. */
  public String field() {
    return field;
  }

  /** When trying again may help. */
  public Optional<Duration> retryAfter() {
    return retryAfter;
  }

  static VoxplainException cancelled() {
    return new VoxplainException(Kind.CANCELLED, "CANCELLED", "the explanation was cancelled", "");
  }

  static VoxplainException lost() {
    return new VoxplainException(Kind.SERVER_UNAVAILABLE, CONNECTION_LOST, "the stream ended before the record", "");
  }

  /** The typed fault for the status of a call. */
  static VoxplainException of(Status status, Metadata trailers, boolean cancelled) {
    if (cancelled) {
      return cancelled();
    }
    String message = Optional.ofNullable(status.getDescription()).orElse("the call failed without a message");
    String reason = "";
    String field = "";
    Optional<Duration> delay = Optional.empty();
    com.google.rpc.Status held = trailers == null ? null : trailers.get(DETAILS);
    try {
      for (var detail : held == null ? java.util.List.<com.google.protobuf.Any>of() : held.getDetailsList()) {
        if (detail.is(ErrorInfo.class) && detail.unpack(ErrorInfo.class).getDomain().equals("voxplain")) {
          reason = detail.unpack(ErrorInfo.class).getReason();
        } else if (detail.is(BadRequest.class)) {
          field =
              detail.unpack(BadRequest.class).getFieldViolationsList().stream()
                  .map(BadRequest.FieldViolation::getField)
                  .collect(Collectors.joining(", "));
        } else if (detail.is(RetryInfo.class)) {
          var told = detail.unpack(RetryInfo.class).getRetryDelay();
          delay = Optional.of(Duration.ofSeconds(told.getSeconds(), told.getNanos()));
        }
      }
    } catch (InvalidProtocolBufferException error) {
      reason = "";
    }
    if (!reason.isEmpty()) {
      return new VoxplainException(Kind.of(status.getCode()), reason, message, field, delay);
    }
    if (LOST.contains(status.getCode())) {
      String text = "the server cannot be reached: check its address and that it is running";
      return new VoxplainException(Kind.SERVER_UNAVAILABLE, CONNECTION_LOST, text, "", delay);
    }
    return new VoxplainException(Kind.of(status.getCode()), status.getCode().name(), message, "", delay);
  }
}
