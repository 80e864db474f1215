//===- Fit.h - Small robust regressions ------------------------------------===//
#ifndef HELIX_LIB_PERF_FIT_H
#define HELIX_LIB_PERF_FIT_H

#include <array>
#include <cstddef>
#include <vector>

namespace helix::perf {

/// The middle value; of an even number, the mean of the two. 0 of none.
double median(std::vector<double> values);

/// One equation sum_i features[i] * x[i] = value, and how much it counts.
template <size_t count> struct Equation {
  std::array<double, count> features = {};
  double value = 0;
  double weight = 1;
};

/// The x >= 0 with the least weighted squares of (features . x - value): exactly, by trying which of the few x are 0.
template <size_t count> std::array<double, count> solveNonNegative(const std::vector<Equation<count>> &equations);

/// The same with relative errors, in which those beyond a tenth count linearly. Values must be above 0.
template <size_t count> std::array<double, count> fitRelative(const std::vector<Equation<count>> &equations);

extern template std::array<double, 2> solveNonNegative(const std::vector<Equation<2>> &);
extern template std::array<double, 3> solveNonNegative(const std::vector<Equation<3>> &);
extern template std::array<double, 2> fitRelative(const std::vector<Equation<2>> &);
extern template std::array<double, 3> fitRelative(const std::vector<Equation<3>> &);

} // namespace helix::perf

#endif // HELIX_LIB_PERF_FIT_H
