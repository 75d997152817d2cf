#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <voxplain/v1/tensor.pb.h>

namespace voxplain {

/// Voxels in C order (the last axis varies fastest), as they travel.
using Voxels = std::variant<std::vector<float>, std::vector<std::int16_t>, std::vector<std::int32_t>, std::vector<std::uint8_t>>;

/// Row-major 4x4 matrix from voxel indices to patient coordinates in mm, RAS+.
using Affine = std::array<double, 16>;

/// One tensor of a case.
struct Volume {
  /// As the model names it; empty for shared labels and masks.
  std::string modality;
  Voxels voxels;
  /// Voxels along each axis.
  std::vector<std::uint32_t> shape;
  /// Nothing: not known.
  std::optional<Affine> affine = std::nullopt;
  v1::TensorRole role = v1::TENSOR_ROLE_VOLUME;
  /// Counts background cases from 0.
  std::uint32_t case_index = 0;
};

/// A declared tensor and its bytes, which the volume keeps.
struct Payload {
  v1::Tensor header;
  const char* data;
  std::size_t size;
};

/// Headers and bytes of a case, as views of `volumes`. Throws InvalidSpec for what the server would refuse and can be seen here.
std::vector<Payload> make_payloads(const std::vector<Volume>& volumes);

}  // namespace voxplain
