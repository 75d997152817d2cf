#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "voxplain/volume.hpp"

namespace voxplain {

/// The most bytes of data in one chunk.
constexpr std::size_t kMaxChunkBytes = 1 << 20;

/// Takes a chunk; false: the call has ended, stop. What the chunk holds may change.
using ChunkSink = std::function<bool(v1::TensorChunk&)>;

/// Hands the chunks of an upload to the sink. Chunks of one tensor come in order; those of different tensors may interleave.
using Chunker = std::function<void(const std::vector<Payload>&, const ChunkSink&)>;

/// CRC-32C (Castagnoli) of bytes.
std::uint32_t crc32c(const void* data, std::size_t size);

/// Fills a chunk of a tensor from `offset` on, with its checksum; its bytes of data.
std::size_t fill_chunk(const Payload& payload, std::size_t offset, std::size_t chunk_bytes, v1::TensorChunk& chunk);

/// One tensor after another, in chunks of 1 MiB.
void in_order(const std::vector<Payload>& payloads, const ChunkSink& sink);

}  // namespace voxplain
