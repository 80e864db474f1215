//===- Fit.cpp - Small robust regressions ----------------------------------===//
#include "lib/Perf/Fit.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace helix::perf {
namespace {

template <size_t count> double dot(const std::array<double, count> &a, const std::array<double, count> &b) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i)
    sum += a[i] * b[i];
  return sum;
}

/// Solves the normal equations of the unknowns in `mask`, the others being 0. False if they do not determine them.
template <size_t count>
bool solveMasked(const std::vector<Equation<count>> &equations, const std::array<double, count> &scale, unsigned mask,
                 std::array<double, count> &x) {
  std::array<std::array<double, count + 1>, count> rows = {};
  for (size_t i = 0; i < count; ++i) {
    if (!(mask >> i & 1)) {
      rows[i][i] = 1;
      continue;
    }
    for (const Equation<count> &equation : equations) {
      double factor = equation.weight * equation.features[i] * scale[i];
      for (size_t j = 0; j < count; ++j)
        if (mask >> j & 1)
          rows[i][j] += factor * equation.features[j] * scale[j];
      rows[i][count] += factor * equation.value;
    }
  }
  for (size_t i = 0; i < count; ++i) {
    size_t pivot = i;
    for (size_t j = i + 1; j < count; ++j)
      if (std::abs(rows[j][i]) > std::abs(rows[pivot][i]))
        pivot = j;
    std::swap(rows[i], rows[pivot]);
    if (std::abs(rows[i][i]) < 1e-12)
      return false;
    for (size_t j = 0; j < count; ++j) {
      if (j == i)
        continue;
      double factor = rows[j][i] / rows[i][i];
      for (size_t k = i; k <= count; ++k)
        rows[j][k] -= factor * rows[i][k];
    }
  }
  for (size_t i = 0; i < count; ++i)
    x[i] = rows[i][count] / rows[i][i] * scale[i];
  return true;
}

} // namespace

double median(std::vector<double> values) {
  if (values.empty())
    return 0;
  size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + ptrdiff_t(middle), values.end());
  double upper = values[middle];
  if (values.size() % 2 == 1)
    return upper;
  return (upper + *std::max_element(values.begin(), values.begin() + ptrdiff_t(middle))) / 2;
}

template <size_t count> std::array<double, count> solveNonNegative(const std::vector<Equation<count>> &equations) {
  // Unknowns differ by many orders of magnitude: columns are scaled to length 1.
  std::array<double, count> scale = {}, best = {};
  for (size_t i = 0; i < count; ++i) {
    for (const Equation<count> &equation : equations)
      scale[i] += equation.weight * equation.features[i] * equation.features[i];
    scale[i] = scale[i] > 0 ? 1 / std::sqrt(scale[i]) : 0;
  }
  double least = INFINITY;
  for (unsigned mask = 0; mask < 1U << count; ++mask) {
    std::array<double, count> x = {};
    if (!solveMasked(equations, scale, mask, x) ||
        std::any_of(x.begin(), x.end(), [](double value) { return value < 0; }))
      continue;
    double loss = 0;
    for (const Equation<count> &equation : equations) {
      double error = dot(equation.features, x) - equation.value;
      loss += equation.weight * error * error;
    }
    if (loss < least) {
      least = loss;
      best = x;
    }
  }
  return best;
}

template <size_t count> std::array<double, count> fitRelative(const std::vector<Equation<count>> &equations) {
  constexpr double kLinearFrom = 0.1;
  constexpr int kRounds = 20;
  std::vector<Equation<count>> weighted = equations;
  std::array<double, count> x = {};
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < equations.size(); ++i) {
      double error = round == 0 ? 0 : std::abs(dot(equations[i].features, x) / equations[i].value - 1);
      double huber = error > kLinearFrom ? kLinearFrom / error : 1;
      weighted[i].weight = equations[i].weight * huber / (equations[i].value * equations[i].value);
    }
    x = solveNonNegative(weighted);
  }
  return x;
}

template std::array<double, 2> solveNonNegative(const std::vector<Equation<2>> &);
template std::array<double, 3> solveNonNegative(const std::vector<Equation<3>> &);
template std::array<double, 2> fitRelative(const std::vector<Equation<2>> &);
template std::array<double, 3> fitRelative(const std::vector<Equation<3>> &);

} // namespace helix::perf
