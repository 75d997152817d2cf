#include "voxplain/volume.hpp"

#include "voxplain/errors.hpp"

namespace voxplain {
namespace {

v1::DataType data_type(const std::vector<float>&) { return v1::DATA_TYPE_FLOAT32; }
v1::DataType data_type(const std::vector<std::int16_t>&) { return v1::DATA_TYPE_INT16; }
v1::DataType data_type(const std::vector<std::int32_t>&) { return v1::DATA_TYPE_INT32; }
v1::DataType data_type(const std::vector<std::uint8_t>&) { return v1::DATA_TYPE_UINT8; }

bool little_endian() {
  const std::uint16_t one = 1;
  return *reinterpret_cast<const unsigned char*>(&one) == 1;
}

}  // namespace

std::vector<Payload> make_payloads(const std::vector<Volume>& volumes) {
  if (!little_endian()) throw InvalidSpec({"BIG_ENDIAN_HOST", "voxels travel little-endian; use a little-endian host"});
  std::vector<Payload> payloads;
  for (std::size_t place = 0; place < volumes.size(); ++place) {
    const Volume& volume = volumes[place];
    Payload payload{};
    v1::Tensor& header = payload.header;
    header.set_id("tensor-" + std::to_string(place));
    header.set_role(volume.role);
    header.set_modality(volume.modality);
    header.set_case_index(volume.case_index);
    std::size_t held = 1;
    for (const auto edge : volume.shape) {
      header.add_shape(edge);
      held *= edge;
    }
    if (volume.affine) header.mutable_affine()->Add(volume.affine->begin(), volume.affine->end());
    const std::size_t count = std::visit(
        [&](const auto& voxels) {
          header.set_data_type(data_type(voxels));
          payload.data = reinterpret_cast<const char*>(voxels.data());
          payload.size = voxels.size() * sizeof(voxels[0]);
          return voxels.size();
        },
        volume.voxels);
    if (held != count) {
      const auto message = "the shape holds " + std::to_string(held) + " voxels, the vector " + std::to_string(count);
      throw InvalidSpec({"SHAPE_MISMATCH", message, "volumes[" + std::to_string(place) + "]"});
    }
    payloads.push_back(std::move(payload));
  }
  return payloads;
}

}  // namespace voxplain
