#pragma once

#include <optional>
#include <string>
#include <vector>

#include "voxplain/volume.hpp"

namespace voxplain {

/// One volume of a NIfTI-1 file. An array goes as it is; its affine says where it lies.
struct Nifti {
  /// In C order, scaled where the file scales them; int16 and uint8 stay as they are.
  Voxels voxels;
  std::vector<std::uint32_t> shape;
  /// Nothing: the file states none.
  std::optional<Affine> affine;
};

/// Reads a .nii or .nii.gz. Throws InvalidSpec: FILE_UNREADABLE, NOT_NIFTI.
Nifti read_nifti(const std::string& path);

/// Writes a map as float32; `affine` has 16 numbers or none. Gzipped where the path ends with .gz. Throws InvalidSpec: FILE_UNREADABLE.
void write_nifti(const std::string& path, const std::vector<float>& voxels, const std::vector<std::uint32_t>& shape,
                 const std::vector<double>& affine);

}  // namespace voxplain
