package dev.voxplain.client;

import com.google.protobuf.ListValue;
import com.google.protobuf.NullValue;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import com.google.protobuf.util.JsonFormat;
import dev.voxplain.v1.Accepted;
import dev.voxplain.v1.DataType;
import dev.voxplain.v1.ExplainSpec;
import dev.voxplain.v1.ExplanationRecord;
import dev.voxplain.v1.MethodResult;
import dev.voxplain.v1.Prediction;
import dev.voxplain.v1.Progress;
import dev.voxplain.v1.TensorChunk;
import dev.voxplain.v1.TensorRole;
import io.grpc.netty.GrpcSslContexts;
import io.netty.handler.ssl.SslContext;
import io.netty.handler.ssl.SslContextBuilder;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** Runs the Java client through the scenarios of tests/conformance. */
public final class Driver {
  private static final int SMALL_CHUNK = 1000;

  private final Struct asked;
  private long start;

  private Driver(Struct asked) {
    this.asked = asked;
  }

  public static void main(String[] arguments) throws IOException, InterruptedException {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      Struct.Builder asked = Struct.newBuilder();
      JsonFormat.parser().merge(line, asked);
      new Driver(asked.build()).answer();
      System.out.println("{\"event\":\"end\"}");
    }
  }

  private void answer() throws IOException, InterruptedException {
    ExplainSpec.Builder spec = ExplainSpec.newBuilder();
    JsonFormat.parser().merge(JsonFormat.printer().print(asked.getFieldsOrThrow("spec").getStructValue()), spec);
    List<Volume> volumes = new ArrayList<>();
    for (Value volume : asked.getFieldsOrThrow("volumes").getListValue().getValuesList()) {
      volumes.add(read(volume.getStructValue()));
    }
    start = System.nanoTime();
    Optional<Duration> timeout =
        asked.containsFields("timeout_s")
            ? Optional.of(Duration.ofMillis((long) (1000 * asked.getFieldsOrThrow("timeout_s").getNumberValue())))
            : Optional.empty();
    try (VoxplainClient client = new VoxplainClient(text(asked, "server"), tls(), text(asked, "token"));
        Explanation explanation = client.explain(spec.build(), volumes, timeout, this::upload)) {
      for (Optional<Object> event = explanation.next(); event.isPresent(); event = explanation.next()) {
        tell(event.get());
        if (event.get() instanceof Progress && text(asked, "cancel_after").equals("progress")) {
          explanation.cancel();
        }
      }
    } catch (VoxplainException fault) {
      Struct.Builder told = Struct.newBuilder();
      told.putFields("kind", value(camel(fault.kind().name())));
      told.putFields("reason", value(fault.reason()));
      told.putFields("field", value(fault.field()));
      Value none = Value.newBuilder().setNullValue(NullValue.NULL_VALUE).build();
      told.putFields("retry_after_s", fault.retryAfter().map(delay -> value(delay.toMillis() / 1000.0)).orElse(none));
      print("error", told);
    }
  }

  private Iterator<TensorChunk> upload(List<Volume> volumes) {
    return switch (text(asked, "upload")) {
      case "interleaved" -> interleaved(volumes).iterator();
      case "close-early" -> Chunks.inOrder(volumes.subList(0, 1));
      case "wrong-checksum" -> Chunks.of(0, volumes.get(0), SMALL_CHUNK)
          .map(chunk -> chunk.toBuilder().setCrc32C(chunk.getCrc32C() ^ 1).build())
          .iterator();
      default -> Chunks.inOrder(volumes);
    };
  }

  private static Stream<TensorChunk> interleaved(List<Volume> volumes) {
    List<List<TensorChunk>> rows =
        IntStream.range(0, volumes.size())
            .mapToObj(place -> Chunks.of(place, volumes.get(place), SMALL_CHUNK).toList())
            .toList();
    int longest = rows.stream().mapToInt(List::size).max().orElse(0);
    return IntStream.range(0, longest)
        .boxed()
        .flatMap(place -> rows.stream().filter(row -> place < row.size()).map(row -> row.get(place)));
  }

  private Optional<SslContext> tls() throws IOException {
    if (text(asked, "ca_file").isEmpty()) {
      return Optional.empty();
    }
    SslContextBuilder builder = GrpcSslContexts.forClient().trustManager(new File(text(asked, "ca_file")));
    if (!text(asked, "certificate_file").isEmpty()) {
      builder.keyManager(new File(text(asked, "certificate_file")), new File(text(asked, "key_file")));
    }
    return Optional.of(builder.build());
  }

  private static Volume read(Struct volume) throws IOException {
    return new Volume(
        TensorRole.valueOf(text(volume, "role")),
        text(volume, "modality"),
        DataType.valueOf(text(volume, "data_type")),
        numbers(volume, "shape").map(Double::intValue).toList(),
        numbers(volume, "affine").toList(),
        ByteBuffer.wrap(Files.readAllBytes(Path.of(text(volume, "file")))));
  }

  private void tell(Object event) throws IOException {
    Struct.Builder told = Struct.newBuilder();
    if (event instanceof Accepted accepted) {
      told.putFields("model", value(accepted.getModel())).putFields("version", value(accepted.getVersion()));
      print("accepted", told);
    } else if (event instanceof Prediction prediction) {
      told.putFields("score", value(prediction.getScore())).putFields("target_name", value(prediction.getTargetName()));
      print("prediction", told);
    } else if (event instanceof Progress progress) {
      told.putFields("stage", value(without("STAGE_", progress.getStage().name())));
      told.putFields("method_key", value(progress.getMethodKey()));
      told.putFields("evaluations_done", value((double) progress.getEvaluationsDone()));
      told.putFields("checkpoint", Value.newBuilder().setBoolValue(!progress.getCheckpoint().isEmpty()).build());
      told.putFields("bytes_received", value((double) progress.getBytesReceived()));
      told.putFields("bytes_total", value((double) progress.getBytesTotal()));
      print("progress", told);
    } else if (event instanceof MapReceived map) {
      told.putFields("method_key", value(map.header().getMethodKey()));
      told.putFields("quantity", value(without("QUANTITY_", map.header().getQuantity().name())));
      told.putFields("modalities", list(map.header().getModalitiesList().stream().map(Driver::value)));
      told.putFields("shape", list(map.shape().stream().map(edge -> value((double) edge))));
      told.putFields("snapshot", Value.newBuilder().setBoolValue(map.header().getSnapshot()).build());
      told.putFields("sha256", value(map.sha256()));
      print("map", told);
    } else if (event instanceof MethodResult result) {
      told.putFields("method_key", value(result.getMethodKey()));
      told.putFields("outcome", value(without("OUTCOME_", result.getOutcome().name())));
      told.putFields("reason", value(result.getReason()));
      print("result", told);
    } else if (event instanceof ExplanationRecord record) {
      told.putFields("maps", value((double) record.getMapsCount()));
      told.putFields("model_digest", value(record.getModelDigest()));
      print("record", told);
    } else if (event instanceof Resuming resuming) {
      told.putFields("reason", value(resuming.fault().reason()));
      told.putFields("wait_s", value(resuming.delay().toMillis() / 1000.0));
      told.putFields("from_checkpoint", Value.newBuilder().setBoolValue(resuming.fromCheckpoint()).build());
      print("resuming", told);
    }
  }

  private void print(String event, Struct.Builder told) throws IOException {
    told.putFields("event", value(event)).putFields("t", value((System.nanoTime() - start) / 1e9));
    System.out.println(JsonFormat.printer().omittingInsignificantWhitespace().print(told));
  }

  private static String text(Struct from, String key) {
    return from.containsFields(key) ? from.getFieldsOrThrow(key).getStringValue() : "";
  }

  private static Stream<Double> numbers(Struct from, String key) {
    return from.getFieldsOrThrow(key).getListValue().getValuesList().stream().map(Value::getNumberValue);
  }

  private static Value value(String text) {
    return Value.newBuilder().setStringValue(text).build();
  }

  private static Value value(double number) {
    return Value.newBuilder().setNumberValue(number).build();
  }

  private static Value list(Stream<Value> values) {
    return Value.newBuilder().setListValue(ListValue.newBuilder().addAllValues(values.toList())).build();
  }

  private static String without(String prefix, String name) {
    return name.startsWith(prefix) ? name.substring(prefix.length()) : name;
  }

  private static String camel(String name) {
    return Arrays.stream(name.split("_"))
        .map(word -> word.charAt(0) + word.substring(1).toLowerCase())
        .collect(Collectors.joining());
  }
}
