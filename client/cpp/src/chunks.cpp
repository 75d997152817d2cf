#include "voxplain/chunks.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace voxplain {
namespace {

using Table = std::array<std::array<std::uint32_t, 256>, 8>;

Table make_table() {
  Table table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78U : 0U);
    table[0][byte] = value;
  }
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    for (std::size_t row = 1; row < 8; ++row) {
      table[row][byte] = (table[row - 1][byte] >> 8) ^ table[0][table[row - 1][byte] & 0xff];
    }
  }
  return table;
}

/// Eight bytes a step by tables (Kounavis and Berry, ISCC 2005), for processors without the instruction.
std::uint32_t by_table(std::uint32_t sum, const unsigned char* data, std::size_t size) {
  static const Table table = make_table();
  for (; size >= 8; data += 8, size -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, data, 8);
    word ^= sum;
    sum = 0;
    for (std::size_t row = 0; row < 8; ++row) sum ^= table[7 - row][(word >> (8 * row)) & 0xff];
  }
  for (; size > 0; ++data, --size) sum = (sum >> 8) ^ table[0][(sum ^ *data) & 0xff];
  return sum;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t by_instruction(std::uint32_t sum, const unsigned char* data, std::size_t size) {
  std::uint64_t wide = sum;
  for (; size >= 8; data += 8, size -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, data, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  sum = static_cast<std::uint32_t>(wide);
  for (; size > 0; ++data, --size) sum = _mm_crc32_u8(sum, *data);
  return sum;
}
#endif

}  // namespace

std::uint32_t crc32c(const void* data, std::size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
#if defined(__x86_64__)
  static const bool fast = __builtin_cpu_supports("sse4.2") != 0;
  if (fast) return ~by_instruction(~0U, bytes, size);
#endif
  return ~by_table(~0U, bytes, size);
}

std::size_t fill_chunk(const Payload& payload, std::size_t offset, std::size_t chunk_bytes, v1::TensorChunk& chunk) {
  const std::size_t size = std::min(chunk_bytes, payload.size - offset);
  chunk.set_tensor_id(payload.header.id());
  chunk.set_offset_bytes(offset);
  chunk.set_data(payload.data + offset, size);
  chunk.set_crc32c(crc32c(payload.data + offset, size));
  return size;
}

void in_order(const std::vector<Payload>& payloads, const ChunkSink& sink) {
  v1::TensorChunk chunk;
  for (const Payload& payload : payloads) {
    for (std::size_t offset = 0; offset < payload.size;) {
      offset += fill_chunk(payload, offset, kMaxChunkBytes, chunk);
      if (!sink(chunk)) return;
    }
  }
}

}  // namespace voxplain
