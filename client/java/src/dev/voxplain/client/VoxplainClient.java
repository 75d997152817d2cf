package dev.voxplain.client;

import dev.voxplain.v1.ExplainServiceGrpc;
import dev.voxplain.v1.ExplainSpec;
import dev.voxplain.v1.Tensor;
import dev.voxplain.v1.TensorChunk;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.MetadataUtils;
import io.netty.handler.ssl.SslContext;
import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/** Explains cases on one server, over one connection. */
public final class VoxplainClient implements AutoCloseable {
  private static final int WINDOW_BYTES = 4 << 20;

  private final ManagedChannel channel;
  private final ExplainServiceGrpc.ExplainServiceStub stub;

  /**
   * @param server HOST:PORT
   * @param tls empty: plaintext; with a key of the client it is mTLS (GrpcSslContexts)
   * @param token bearer token, sent with every call; empty: none
   * @throws VoxplainException ACCESS_INVALID: the token would leave this host in plaintext
   */
  public VoxplainClient(String server, Optional<SslContext> tls, String token) {
    if (!token.isEmpty() && tls.isEmpty() && !isThisHost(server)) {
      String text = "a token would leave this host in plaintext: use TLS";
      throw new VoxplainException(VoxplainException.Kind.INVALID_SPEC, "ACCESS_INVALID", text, "access.token");
    }
    NettyChannelBuilder builder =
        NettyChannelBuilder.forTarget(server)
            // Without keepalive a peer that vanished is found after two hours.
            .keepAliveTime(30, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .flowControlWindow(WINDOW_BYTES);
    tls.ifPresentOrElse(builder::sslContext, builder::usePlaintext);
    channel = builder.build();
    Metadata headers = new Metadata();
    if (!token.isEmpty()) {
      headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    }
    stub = ExplainServiceGrpc.newStub(channel).withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  /** Starts an explanation, in chunks of 1 MiB. */
  public Explanation explain(ExplainSpec spec, List<Volume> volumes, Optional<Duration> timeout) {
    return explain(spec, volumes, timeout, Chunks::inOrder);
  }

  /** Starts an explanation whose bytes the caller cuts. */
  public Explanation explain(
      ExplainSpec spec,
      List<Volume> volumes,
      Optional<Duration> timeout,
      Function<List<Volume>, Iterator<TensorChunk>> chunks) {
    ExplainSpec.Builder declared = spec.toBuilder();
    if (spec.getRequestId().isEmpty()) {
      declared.setRequestId(UUID.randomUUID().toString());
    }
    for (int place = 0; place < volumes.size(); place++) {
      Volume volume = volumes.get(place);
      declared.addTensors(
          Tensor.newBuilder()
              .setId(Chunks.id(place))
              .setRole(volume.role())
              .setModality(volume.modality())
              .setDataType(volume.dataType())
              .addAllShape(volume.shape())
              .addAllAffine(volume.affine()));
    }
    return new Explanation(stub, declared.build(), () -> chunks.apply(volumes), timeout);
  }

  /** Whether HOST:PORT, with or without gRPC's dns:, is this host alone. */
  static boolean isThisHost(String server) {
    String place = server.replaceFirst("^dns:(//[^/]*/)?", "");
    String host = place.startsWith("[") ? place.substring(1).split("]", 2)[0] : place.replaceFirst(":[0-9]*$", "");
    return host.equals("localhost") || host.equals("::1") || host.matches("127(\\.[0-9]{1,3}){3}");
  }

  @Override
  public void close() {
    channel.shutdownNow();
  }
}
