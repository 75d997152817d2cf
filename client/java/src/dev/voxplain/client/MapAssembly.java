package dev.voxplain.client;

import dev.voxplain.client.VoxplainException.Kind;
import dev.voxplain.v1.DataType;
import dev.voxplain.v1.Map;
import dev.voxplain.v1.Quantity;
import dev.voxplain.v1.TensorChunk;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HashMap;
import java.util.HexFormat;

/** Puts the maps of one call together and checks every byte on the way. */
final class MapAssembly {
  private record Labels(Map header, int[] values) {}

  private final HashMap<String, Labels> labels = new HashMap<>();
  private Map header;
  private ByteBuffer bytes = ByteBuffer.allocate(0);

  void begin(Map next) {
    if (header != null) {
      throw fault("MAP_INCOMPLETE", "the server began a map before the last was whole", next.getMethodKey());
    }
    long size = next.getShapeList().stream().mapToLong(Integer::toUnsignedLong).reduce(4, (all, edge) -> all * edge);
    boolean isLabels = next.getQuantity() == Quantity.QUANTITY_LABELS;
    boolean known = next.getDataType() == (isLabels ? DataType.DATA_TYPE_INT32 : DataType.DATA_TYPE_FLOAT32);
    if (!known || size <= 0 || size > Integer.MAX_VALUE || size != next.getSizeBytes()) {
      throw fault("MAP_SIZE", "the map's size and shape do not agree, or it is beyond 2 GiB", next.getMethodKey());
    }
    header = next;
    bytes = ByteBuffer.allocate((int) size).order(ByteOrder.LITTLE_ENDIAN);
  }

  /** Takes a chunk of the map announced last; the map, once it is whole and not labels, else null. */
  MapReceived add(TensorChunk chunk) {
    int length = chunk.getData().size();
    boolean fits = length > 0 && length <= Chunks.MAX_BYTES && length <= bytes.remaining();
    if (header == null
        || !chunk.getTensorId().equals(header.getId())
        || chunk.getOffsetBytes() != bytes.position()
        || !fits) {
      throw fault("CHUNK_UNEXPECTED", "the server sent a chunk that does not belong here", "chunk");
    }
    if (chunk.hasCrc32C() && Chunks.checksum(chunk.getData().asReadOnlyByteBuffer()) != chunk.getCrc32C()) {
      String message = "the bytes were changed on their way; ask again";
      throw new VoxplainException(Kind.CHECKSUM_MISMATCH, "CHECKSUM_MISMATCH", message, header.getMethodKey());
    }
    chunk.getData().copyTo(bytes);
    return bytes.hasRemaining() ? null : finish();
  }

  private MapReceived finish() {
    Map whole = header;
    header = null;
    bytes.flip();
    if (whole.getQuantity() == Quantity.QUANTITY_LABELS) {
      int[] values = new int[bytes.remaining() / 4];
      bytes.asIntBuffer().get(values);
      labels.put(whole.getId(), new Labels(whole, values));
      return null;
    }
    String sha256 = sha256(bytes.duplicate());
    float[] values = new float[bytes.remaining() / 4];
    bytes.asFloatBuffer().get(values);
    if (whole.getLabelsId().isEmpty()) {
      return new MapReceived(whole, values, whole.getShapeList(), whole.getAffineList(), sha256);
    }
    Labels held = labels.get(whole.getLabelsId());
    if (held == null) {
      throw fault("MAP_LABELS", "the server sent values whose labels are not there", whole.getMethodKey());
    }
    // One value for each label becomes one for each voxel: voxel = values[label].
    float[] voxels = new float[held.values.length];
    for (int place = 0; place < voxels.length; place++) {
      int label = held.values[place];
      if (label < 0 || label >= values.length) {
        throw fault("MAP_LABELS", "the server sent values whose labels are not there", whole.getMethodKey());
      }
      voxels[place] = values[label];
    }
    return new MapReceived(whole, voxels, held.header.getShapeList(), held.header.getAffineList(), sha256);
  }

  private static VoxplainException fault(String reason, String message, String field) {
    return new VoxplainException(Kind.INVALID_SPEC, reason, message, field);
  }

  private static String sha256(ByteBuffer bytes) {
    try {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      digest.update(bytes);
      return HexFormat.of().formatHex(digest.digest());
    } catch (NoSuchAlgorithmException error) {
      throw new IllegalStateException("every Java platform has SHA-256", error);
    }
  }
}
