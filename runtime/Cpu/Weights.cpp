//===- Weights.cpp - From a model's file to the form a kernel reads --------===//
#include "runtime/Cpu/Weights.h"
#include "runtime/Cpu/Convert.h"
#include "runtime/Cpu/Kernels.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace helix::cpu {
namespace {

/// The product of `factors`, if it fits a signed 64-bit count.
std::optional<uint64_t> product(std::initializer_list<uint64_t> factors) {
  uint64_t result = 1;
  for (uint64_t factor : factors)
    if (__builtin_mul_overflow(result, factor, &result) || result > std::numeric_limits<int64_t>::max())
      return std::nullopt;
  return result;
}

/// A weight of one dimension is a single row.
WeightDim rowsOf(const WeightPlan &plan) { return plan.rank == 2 ? plan.dims[0] : WeightDim{1, 0, {0, 1}, 1}; }
const WeightDim &columnsOf(const WeightPlan &plan) { return plan.dims[plan.rank - 1]; }

/// Whether the packed weight has elements that the share does not.
bool isPadded(const WeightPlan &plan) {
  const WeightDim &columns = plan.transposed ? plan.dims[0] : columnsOf(plan);
  return rowsOf(plan).share.size() != rowsOf(plan).local || columnsOf(plan).share.size() != columnsOf(plan).local ||
         (plan.use == WeightUse::Linear && columns.local % kPanelWidth != 0);
}

bool isElement(DType dtype) { return dtype <= DType::BF16; }

/// Converts `count` elements; those of the file need not be aligned.
template <typename To, typename From> void convert(const std::byte *from, To *to, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    From element;
    std::memcpy(&element, from + i * sizeof(From), sizeof(From));
    // Through f32 a NaN could change its payload; the same type is a copy.
    if constexpr (std::is_same_v<To, From>)
      to[i] = element;
    else
      fromFloat(toFloat(element), to[i]);
  }
}

template <typename To, typename From> void pack(const WeightPlan &plan, const std::byte *stored, To *packed) {
  WeightDim rows = rowsOf(plan);
  const WeightDim &columns = columnsOf(plan);
  // The packed matrix is panels of `width` columns, each [rows][width]; a table is one panel.
  uint64_t width = plan.use == WeightUse::Linear ? kPanelWidth : std::max<uint64_t>(1, columns.local);
  for (uint64_t row = 0; row < rows.share.size(); ++row) {
    uint64_t first = rows.at(row) * columns.stored;
    for (uint64_t column = 0, count = 0; column < columns.share.size(); column += count) {
      count = std::min(columns.sideBySide(column), width - column % width);
      convert<To, From>(stored + (first + columns.at(column)) * sizeof(From),
                        packed + ((column - column % width) * rows.local + row * width + column % width), count);
    }
  }
}

/// The stored rows of a transposed weight are its columns. Tile by tile, so that those of a panel are read and its rows
/// written a few lines of memory at a time.
template <typename To, typename From> void packTransposed(const WeightPlan &plan, const std::byte *stored, To *packed) {
  const WeightDim &columns = plan.dims[0], &rows = plan.dims[1];
  constexpr uint64_t depth = 64;
  To lines[kPanelWidth][depth];
  for (uint64_t column = 0; column < columns.share.size(); column += kPanelWidth) {
    uint64_t width = std::min(kPanelWidth, columns.share.size() - column);
    for (uint64_t lane = width; lane < kPanelWidth; ++lane) // padding
      std::fill_n(lines[lane], depth, To());
    for (uint64_t start = 0, count = 0; start < rows.share.size(); start += count) {
      count = std::min({depth, rows.share.size() - start, rows.sideBySide(start)});
      for (uint64_t lane = 0; lane < width; ++lane)
        convert<To, From>(stored + (columns.at(column + lane) * rows.stored + rows.at(start)) * sizeof(From),
                          lines[lane], count);
      To *to = packed + column * rows.local + start * kPanelWidth;
      for (uint64_t row = 0; row < count; ++row)
        for (uint64_t lane = 0; lane < kPanelWidth; ++lane)
          to[row * kPanelWidth + lane] = lines[lane][row];
    }
  }
}

} // namespace

bool isConsistent(const WeightDim &dim) {
  if (dim.share.begin > dim.share.end || dim.share.size() > dim.local || dim.windowOffset > dim.stored ||
      (dim.run == 0 ? dim.stride != 0 : dim.stride < dim.run))
    return false;
  uint64_t end = dim.share.end, last = end - 1;
  if (dim.run != 0 && end != 0 &&
      (__builtin_mul_overflow(last / dim.run, dim.stride, &end) ||
       __builtin_add_overflow(end, last % dim.run + 1, &end)))
    return false;
  return end <= dim.stored - dim.windowOffset;
}

Range splitRange(Range range, uint64_t chunk, uint64_t coordinate) {
  uint64_t offset;
  if (__builtin_mul_overflow(chunk, coordinate, &offset) || offset >= range.size())
    return {range.end, range.end};
  uint64_t begin = range.begin + offset;
  return {begin, begin + std::min(chunk, range.end - begin)};
}

std::optional<uint64_t> packedBytes(const WeightPlan &plan) {
  if ((plan.rank != 1 && plan.rank != 2) || !isElement(plan.stored) || !isElement(plan.dtype) ||
      (plan.use == WeightUse::Linear && plan.rank == 1) || (plan.transposed && plan.use != WeightUse::Linear) ||
      (plan.use == WeightUse::Vector && plan.dtype != DType::F32))
    return std::nullopt;
  uint64_t rows = rowsOf(plan).local, columns = columnsOf(plan).local;
  if (plan.transposed)
    std::swap(rows, columns);
  if (!isConsistent(rowsOf(plan)) || !isConsistent(columnsOf(plan)) ||
      columns > std::numeric_limits<uint64_t>::max() - kPanelWidth)
    return std::nullopt;
  if (plan.use == WeightUse::Linear)
    columns = linearItems(columns) * kPanelWidth;
  return product({rows, columns, elementBytes(plan.dtype)});
}

bool loadWeight(const WeightPlan &plan, std::span<const std::byte> stored, std::span<std::byte> packed) {
  std::optional<uint64_t> to = packedBytes(plan);
  if (!to || *to != packed.size())
    return false;
  std::optional<uint64_t> from = product({rowsOf(plan).stored, columnsOf(plan).stored, elementBytes(plan.stored)});
  if (!from || *from != stored.size())
    return false;
  if (isPadded(plan))
    std::fill(packed.begin(), packed.end(), std::byte(0));
  withElement(plan.dtype, [&](auto target) {
    withElement(plan.stored, [&](auto source) {
      using To = decltype(target);
      auto *to = reinterpret_cast<To *>(packed.data());
      if (plan.transposed)
        packTransposed<To, decltype(source)>(plan, stored.data(), to);
      else
        pack<To, decltype(source)>(plan, stored.data(), to);
    });
  });
  return true;
}

} // namespace helix::cpu
