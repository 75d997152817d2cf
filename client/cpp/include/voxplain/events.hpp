#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <voxplain/v1/explain.pb.h>

#include "voxplain/errors.hpp"

namespace voxplain {

/// A whole map.
struct Map {
  /// Method, quantity, modalities, grid, and whether it is a snapshot.
  v1::Map header;
  /// In C order. Values by label are spread over the voxels already.
  std::vector<float> voxels;
  /// Voxels along each axis.
  std::vector<std::uint32_t> shape;
  /// As the client sent it; empty where it sent none.
  std::vector<double> affine;
  /// SHA-256 of the map's bytes, lower-case hexadecimal, as the record holds it.
  std::string sha256;
};

using MapPointer = std::shared_ptr<const Map>;

/// The call broke or must wait; it will be made again by itself.
struct Resuming {
  Error fault;
  /// Counts from 1 since the last advance.
  int attempt;
  std::chrono::milliseconds wait;
  /// False: the compute starts over.
  bool from_checkpoint;
};

/// What an explanation tells while it runs.
using Event =
    std::variant<v1::Accepted, v1::Prediction, v1::Progress, MapPointer, v1::MethodResult, v1::ExplanationRecord, Resuming>;

/// All that an explanation gave, put together.
struct Result {
  v1::Accepted accepted;
  v1::Prediction prediction;
  /// What reproduces the maps.
  v1::ExplanationRecord record;
  /// By method key: outcome, importance, gap, standard error, times.
  std::map<std::string, v1::MethodResult> results;
  /// The final maps, of all quantities, in the order of the record.
  std::vector<MapPointer> maps;

  /// The attribution map of a method for a modality; null where there is none.
  MapPointer map(const std::string& method_key, const std::string& modality) const;
};

}  // namespace voxplain
