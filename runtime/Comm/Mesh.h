//===- Mesh.h - Ranks and their coordinates --------------------------------===//
#ifndef HELIX_RUNTIME_COMM_MESH_H
#define HELIX_RUNTIME_COMM_MESH_H

#include <cstdint>

namespace helix {

/// Numbered as in lib/Artifact/Artifact.fbs.
enum class Axis : uint8_t { N = 0, Tpa = 1, Kvp = 2, Ep = 3, Tpf = 4 };
inline constexpr unsigned kAxes = 5;

/// rank = tpa_i * kvp + kvp_i = ep_i * tpf + tpf_i.
struct Mesh {
  uint32_t tpa = 1, kvp = 1, ep = 1, tpf = 1;

  constexpr uint32_t ranks() const { return tpa * kvp; }

  constexpr uint32_t size(Axis axis) const {
    const uint32_t sizes[kAxes] = {ranks(), tpa, kvp, ep, tpf};
    return sizes[unsigned(axis)];
  }

  constexpr uint32_t coordinate(Axis axis, uint32_t rank) const {
    const uint32_t coordinates[kAxes] = {rank, rank / kvp, rank % kvp, rank / tpf, rank % tpf};
    return coordinates[unsigned(axis)];
  }

  /// Ranks between neighbours along the axis.
  constexpr uint32_t stride(Axis axis) const {
    const uint32_t strides[kAxes] = {1, kvp, 1, tpf, 1};
    return strides[unsigned(axis)];
  }

  /// The rank at `coordinate` along the axis, with the other coordinate of `rank`.
  constexpr uint32_t peer(Axis axis, uint32_t rank, uint32_t coordinate) const {
    return rank - this->coordinate(axis, rank) * stride(axis) + coordinate * stride(axis);
  }
};

} // namespace helix

#endif // HELIX_RUNTIME_COMM_MESH_H
