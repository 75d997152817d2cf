#include "voxplain/nifti.hpp"

#include <cmath>
#include <cstring>
#include <memory>

#include <zlib.h>

#include "voxplain/errors.hpp"

namespace voxplain {
namespace {

constexpr std::size_t kHeaderBytes = 348;
constexpr std::size_t kDataOffset = 352;

struct Closer {
  void operator()(gzFile file) const { gzclose(file); }
};
using File = std::unique_ptr<gzFile_s, Closer>;

[[noreturn]] void refuse_file() { throw InvalidSpec({"FILE_UNREADABLE", "the file cannot be read or written whole"}); }

[[noreturn]] void refuse_format() {
  throw InvalidSpec({"NOT_NIFTI", "the file is no little-endian NIfTI-1 volume in one piece, or its type is not supported"});
}

template <typename Number>
Number at(const std::vector<char>& bytes, std::size_t offset) {
  Number value{};
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

template <typename Number>
void put(std::vector<char>& bytes, std::size_t offset, Number value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

std::vector<char> read_whole(const std::string& path) {
  // Reads what is not gzipped as it is.
  const File file(gzopen(path.c_str(), "rb"));
  if (!file) refuse_file();
  std::vector<char> bytes;
  std::vector<char> part(1 << 20);
  int got = 0;
  while ((got = gzread(file.get(), part.data(), static_cast<unsigned>(part.size()))) > 0) {
    bytes.insert(bytes.end(), part.begin(), part.begin() + got);
  }
  if (got < 0) refuse_file();
  return bytes;
}

/// For every voxel its place in C order and in the file, whose first axis varies fastest.
template <typename Visit>
void each(const std::vector<std::uint32_t>& shape, Visit visit) {
  const std::size_t nz = shape.size() > 2 ? shape[2] : 1;
  std::size_t c = 0;
  for (std::size_t x = 0; x < shape[0]; ++x) {
    for (std::size_t y = 0; y < shape[1]; ++y) {
      for (std::size_t z = 0; z < nz; ++z) visit(c++, x + shape[0] * (y + shape[1] * z));
    }
  }
}

template <typename Stored, typename Out>
std::vector<Out> convert(const std::vector<char>& bytes, const std::vector<std::uint32_t>& shape, double slope, double intercept) {
  const auto offset = static_cast<std::size_t>(at<float>(bytes, 108));
  std::size_t count = 1;
  for (const auto edge : shape) count *= edge;
  if (count == 0 || offset < kHeaderBytes || bytes.size() < offset + count * sizeof(Stored)) refuse_format();
  std::vector<Out> out(count);
  each(shape, [&](std::size_t c, std::size_t fortran) {
    const auto value = at<Stored>(bytes, offset + fortran * sizeof(Stored));
    if constexpr (std::is_same_v<Stored, Out>) {
      out[c] = value;
    } else {
      out[c] = static_cast<Out>(static_cast<double>(value) * slope + intercept);
    }
  });
  return out;
}

Voxels read_voxels(const std::vector<char>& bytes, const std::vector<std::uint32_t>& shape) {
  double slope = at<float>(bytes, 112);
  double intercept = at<float>(bytes, 116);
  const bool scaled = std::isfinite(slope) && slope != 0 && (slope != 1 || intercept != 0);
  if (!scaled) slope = 1, intercept = 0;
  switch (at<std::int16_t>(bytes, 70)) {
    case 2:
      if (!scaled) return convert<std::uint8_t, std::uint8_t>(bytes, shape, 1, 0);
      return convert<std::uint8_t, float>(bytes, shape, slope, intercept);
    case 4:
      if (!scaled) return convert<std::int16_t, std::int16_t>(bytes, shape, 1, 0);
      return convert<std::int16_t, float>(bytes, shape, slope, intercept);
    case 8: return convert<std::int32_t, float>(bytes, shape, slope, intercept);
    case 16:
      if (!scaled) return convert<float, float>(bytes, shape, 1, 0);
      refuse_format();
    case 64: return convert<double, float>(bytes, shape, slope, intercept);
    case 512: return convert<std::uint16_t, float>(bytes, shape, slope, intercept);
    default: refuse_format();
  }
}

std::optional<Affine> read_affine(const std::vector<char>& bytes) {
  const auto real = [&](std::size_t offset) { return static_cast<double>(at<float>(bytes, offset)); };
  if (at<std::int16_t>(bytes, 254) > 0) {
    Affine affine{};
    for (std::size_t place = 0; place < 12; ++place) affine[place] = real(280 + 4 * place);
    affine[15] = 1;
    return affine;
  }
  if (at<std::int16_t>(bytes, 252) <= 0) return std::nullopt;
  // The quaternion form: rotation times spacing, the third axis flipped where pixdim[0] is -1.
  const double b = real(256), c = real(260), d = real(264);
  const double a = std::sqrt(std::max(0.0, 1 - (b * b + c * c + d * d)));
  const double dx = real(80), dy = real(84), dz = real(88) * (real(76) < 0 ? -1 : 1);
  return Affine{(a * a + b * b - c * c - d * d) * dx, 2 * (b * c - a * d) * dy, 2 * (b * d + a * c) * dz, real(268),
                2 * (b * c + a * d) * dx, (a * a + c * c - b * b - d * d) * dy, 2 * (c * d - a * b) * dz, real(272),
                2 * (b * d - a * c) * dx, 2 * (c * d + a * b) * dy, (a * a + d * d - c * c - b * b) * dz, real(276),
                0, 0, 0, 1};
}

}  // namespace

Nifti read_nifti(const std::string& path) {
  const auto bytes = read_whole(path);
  if (bytes.size() < kDataOffset || at<std::int32_t>(bytes, 0) != static_cast<std::int32_t>(kHeaderBytes) ||
      std::memcmp(bytes.data() + 344, "n+1", 4) != 0) {
    refuse_format();
  }
  auto rank = at<std::int16_t>(bytes, 40);
  while (rank > 3 && rank < 8 && at<std::int16_t>(bytes, 40 + 2 * static_cast<std::size_t>(rank)) == 1) --rank;
  if (rank < 2 || rank > 3) refuse_format();
  std::vector<std::uint32_t> shape;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(rank); ++axis) {
    const auto edge = at<std::int16_t>(bytes, 42 + 2 * axis);
    if (edge < 1) refuse_format();
    shape.push_back(static_cast<std::uint32_t>(edge));
  }
  return {read_voxels(bytes, shape), shape, read_affine(bytes)};
}

void write_nifti(const std::string& path, const std::vector<float>& voxels, const std::vector<std::uint32_t>& shape,
                 const std::vector<double>& affine) {
  const bool placed = affine.size() == 16;
  std::vector<char> bytes(kDataOffset + voxels.size() * sizeof(float), 0);
  put(bytes, 0, static_cast<std::int32_t>(kHeaderBytes));
  put(bytes, 40, static_cast<std::int16_t>(shape.size()));
  for (std::size_t axis = 0; axis < 7; ++axis) {
    put(bytes, 42 + 2 * axis, static_cast<std::int16_t>(axis < shape.size() ? shape[axis] : 1));
    const double step = placed && axis < 3 ? std::hypot(affine[axis], affine[axis + 4], affine[axis + 8]) : 1;
    put(bytes, 80 + 4 * axis, static_cast<float>(step));
  }
  put(bytes, 70, std::int16_t{16});  // float32
  put(bytes, 72, std::int16_t{32});  // bits of a voxel
  put(bytes, 76, 1.0F);
  put(bytes, 108, static_cast<float>(kDataOffset));
  put(bytes, 112, 1.0F);  // slope
  bytes[123] = 2;         // mm
  if (placed) {
    put(bytes, 254, std::int16_t{2});  // sform: aligned to something
    for (std::size_t place = 0; place < 12; ++place) put(bytes, 280 + 4 * place, static_cast<float>(affine[place]));
  }
  std::memcpy(bytes.data() + 344, "n+1", 4);
  each(shape, [&](std::size_t c, std::size_t fortran) { put(bytes, kDataOffset + 4 * fortran, voxels[c]); });
  const bool packed = path.size() > 3 && path.compare(path.size() - 3, 3, ".gz") == 0;
  File file(gzopen(path.c_str(), packed ? "wb" : "wbT"));
  if (!file || gzwrite(file.get(), bytes.data(), static_cast<unsigned>(bytes.size())) <= 0) refuse_file();
  if (gzclose(file.release()) != Z_OK) refuse_file();
}

}  // namespace voxplain
