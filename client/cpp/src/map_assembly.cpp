#include "map_assembly.hpp"

#include <cstring>

#include <openssl/evp.h>

#include "voxplain/chunks.hpp"

namespace voxplain {
namespace {

std::string sha256(const void* data, std::size_t size) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  if (EVP_Digest(data, size, digest, &length, EVP_sha256(), nullptr) != 1) {
    throw InternalFault({"DIGEST_FAILED", "this host's OpenSSL has no SHA-256"});
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned int place = 0; place < length; ++place) {
    text += kDigits[digest[place] >> 4];
    text += kDigits[digest[place] & 15];
  }
  return text;
}

}  // namespace

void MapAssembly::begin(const v1::Map& header) {
  if (header_) throw InvalidSpec({"MAP_INCOMPLETE", "the server began a map before the last was whole", header.method_key()});
  std::uint64_t size = sizeof(float);
  for (const auto edge : header.shape()) size *= edge;
  const bool labels = header.quantity() == v1::QUANTITY_LABELS;
  const bool known = header.data_type() == (labels ? v1::DATA_TYPE_INT32 : v1::DATA_TYPE_FLOAT32);
  if (!known || size == 0 || size != header.size_bytes()) {
    throw InvalidSpec({"MAP_SIZE", "the map's size and shape do not agree", header.method_key()});
  }
  header_ = header;
  voxels_.assign(size / sizeof(float), 0.0F);
  received_ = 0;
}

MapPointer MapAssembly::add(const v1::TensorChunk& chunk) {
  const std::size_t length = chunk.data().size();
  const std::size_t size = voxels_.size() * sizeof(float);
  const bool fits = length > 0 && length <= kMaxChunkBytes && received_ + length <= size;
  if (!header_ || chunk.tensor_id() != header_->id() || chunk.offset_bytes() != received_ || !fits) {
    throw InvalidSpec({"CHUNK_UNEXPECTED", "the server sent a chunk that does not belong here", "chunk"});
  }
  if (chunk.has_crc32c() && crc32c(chunk.data().data(), length) != chunk.crc32c()) {
    throw ChecksumMismatch({"CHECKSUM_MISMATCH", "the bytes were changed on their way; ask again", header_->method_key()});
  }
  std::memcpy(reinterpret_cast<char*>(voxels_.data()) + received_, chunk.data().data(), length);
  received_ += length;
  return received_ == size ? finish() : nullptr;
}

MapPointer MapAssembly::finish() {
  const v1::Map header = *header_;
  header_.reset();
  if (header.quantity() == v1::QUANTITY_LABELS) {
    Labels& labels = labels_[header.id()];
    labels.header = header;
    labels.values.resize(voxels_.size());
    std::memcpy(labels.values.data(), voxels_.data(), voxels_.size() * sizeof(float));
    return nullptr;
  }
  auto map = std::make_shared<Map>();
  map->sha256 = sha256(voxels_.data(), voxels_.size() * sizeof(float));
  v1::Map grid = header;
  if (header.labels_id().empty()) {
    map->voxels = std::move(voxels_);
  } else {
    // One value for each label becomes one for each voxel: voxel = values[label].
    const Fault missing{"MAP_LABELS", "the server sent values whose labels are not there", header.method_key()};
    const auto labels = labels_.find(header.labels_id());
    if (labels == labels_.end()) throw InvalidSpec(missing);
    map->voxels.reserve(labels->second.values.size());
    for (const auto label : labels->second.values) {
      if (label < 0 || static_cast<std::size_t>(label) >= voxels_.size()) throw InvalidSpec(missing);
      map->voxels.push_back(voxels_[static_cast<std::size_t>(label)]);
    }
    grid = labels->second.header;
  }
  voxels_.clear();
  map->shape.assign(grid.shape().begin(), grid.shape().end());
  map->affine.assign(grid.affine().begin(), grid.affine().end());
  map->header = header;
  return map;
}

}  // namespace voxplain
