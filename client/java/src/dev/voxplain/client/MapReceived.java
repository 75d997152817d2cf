package dev.voxplain.client;

import dev.voxplain.v1.Map;
import java.util.List;

/**
 * A whole map.
 *
 * @param header method, quantity, modalities, grid, and whether it is a snapshot
 * @param voxels in C order; values by label are spread over the voxels already
 * @param shape voxels along each axis
 * @param affine as the client sent it; empty where it sent none
 * @param sha256 of the map's bytes, lower-case hexadecimal, as the record holds it
 */
public record MapReceived(Map header, float[] voxels, List<Integer> shape, List<Double> affine, String sha256) {}
