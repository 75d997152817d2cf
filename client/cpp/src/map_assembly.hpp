#pragma once

#include <map>
#include <optional>
#include <string>

#include "voxplain/events.hpp"

namespace voxplain {

/// Puts the maps of one call together and checks every byte on the way.
class MapAssembly {
 public:
  /// Takes the header of the next map. Throws InvalidSpec: MAP_INCOMPLETE, MAP_SIZE.
  void begin(const v1::Map& header);
  /// Takes a chunk of the map announced last; the map, once it is whole and not labels. Throws InvalidSpec: CHUNK_UNEXPECTED,
  /// MAP_LABELS; ChecksumMismatch.
  MapPointer add(const v1::TensorChunk& chunk);

 private:
  struct Labels {
    v1::Map header;
    std::vector<std::int32_t> values;
  };
  MapPointer finish();

  std::optional<v1::Map> header_;
  std::vector<float> voxels_;
  std::size_t received_ = 0;
  std::map<std::string, Labels> labels_;
};

}  // namespace voxplain
