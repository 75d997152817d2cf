package dev.voxplain.client;

import com.google.protobuf.UnsafeByteOperations;
import dev.voxplain.v1.TensorChunk;
import java.nio.ByteBuffer;
import java.util.Iterator;
import java.util.List;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import java.util.zip.CRC32C;

/** How the bytes of a case are cut. */
public final class Chunks {
  /** The most bytes of data in one chunk. */
  public static final int MAX_BYTES = 1 << 20;

  private Chunks() {}

  /** The id under which a volume is declared. */
  public static String id(int place) {
    return "tensor-" + place;
  }

  /** One tensor after another, in chunks of 1 MiB. */
  public static Iterator<TensorChunk> inOrder(List<Volume> volumes) {
    return IntStream.range(0, volumes.size()).boxed().flatMap(place -> of(place, volumes.get(place), MAX_BYTES)).iterator();
  }

  /** The chunks of one tensor, with checksums, made as they are taken. Their data are views, not copies. */
  public static Stream<TensorChunk> of(int place, Volume volume, int chunkBytes) {
    int size = volume.voxels().remaining();
    return IntStream.iterate(0, offset -> offset < size, offset -> offset + chunkBytes)
        .mapToObj(offset -> chunk(place, volume.voxels(), offset, Math.min(chunkBytes, size - offset)));
  }

  private static TensorChunk chunk(int place, ByteBuffer voxels, int offset, int length) {
    ByteBuffer data = voxels.slice(voxels.position() + offset, length);
    return TensorChunk.newBuilder()
        .setTensorId(id(place))
        .setOffsetBytes(offset)
        .setCrc32C(checksum(data.duplicate()))
        .setData(UnsafeByteOperations.unsafeWrap(data))
        .build();
  }

  static int checksum(ByteBuffer data) {
    CRC32C sum = new CRC32C();
    sum.update(data);
    return (int) sum.getValue();
  }
}
