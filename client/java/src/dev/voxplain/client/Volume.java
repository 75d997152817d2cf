package dev.voxplain.client;

import dev.voxplain.v1.DataType;
import dev.voxplain.v1.TensorRole;
import java.nio.ByteBuffer;
import java.util.List;

/**
 * One tensor of a case.
 *
 * @param role a volume to be explained, labels, a baseline, ...
 * @param modality as the model names it; empty for shared labels and masks
 * @param dataType of the voxels
 * @param shape voxels along each axis
 * @param affine row-major 4x4 matrix from voxel indices to mm, RAS+; empty: not known
 * @param voxels little-endian, in C order (the last axis varies fastest)
 */
public record Volume(
    TensorRole role, String modality, DataType dataType, List<Integer> shape, List<Double> affine, ByteBuffer voxels) {}
