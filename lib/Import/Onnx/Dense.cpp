//===- Dense.cpp - Constants, computed at import ---------------------------===//
#include "lib/Import/Onnx/Dense.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSwitch.h"

#include <algorithm>
#include <cmath>
#include <numeric>

using llvm::ArrayRef;
using llvm::SmallVector;
using llvm::StringRef;

namespace helix::onnximport {
namespace {

// Tables and scales of a decoder stay far below; products of weights are not done here.
constexpr int64_t kMaxElements = int64_t(1) << 22;
constexpr double kExactIntegers = 0x1p53;

using Shape = SmallVector<int64_t, 4>;

std::optional<int64_t> countOf(ArrayRef<int64_t> shape) {
  int64_t count = 1;
  for (int64_t dim : shape)
    if (dim < 0 || __builtin_mul_overflow(count, dim, &count) || count > kMaxElements)
      return std::nullopt;
  return count;
}

SmallVector<int64_t, 4> stridesOf(ArrayRef<int64_t> shape) {
  SmallVector<int64_t, 4> strides(shape.size(), 1);
  for (size_t d = shape.size(); d-- > 1;)
    strides[d - 1] = strides[d] * shape[d];
  return strides;
}

/// Calls function(i, offset) for each index of `shape` in order; the offset moves by strides[d] along dimension d.
template <typename F> void walk(ArrayRef<int64_t> shape, ArrayRef<int64_t> strides, int64_t start, F function) {
  int64_t count = *countOf(shape);
  SmallVector<int64_t, 4> index(shape.size(), 0);
  int64_t offset = start;
  for (int64_t i = 0; i < count; ++i) {
    function(i, offset);
    for (size_t d = shape.size(); d-- > 0;) {
      offset += strides[d];
      if (++index[d] < shape[d])
        break;
      offset -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
}

std::optional<Shape> broadcastShape(ArrayRef<Dense> operands) {
  Shape shape;
  for (const Dense &operand : operands) {
    Shape other = operand.shape;
    size_t rank = std::max(shape.size(), other.size());
    shape.insert(shape.begin(), rank - shape.size(), 1);
    other.insert(other.begin(), rank - other.size(), 1);
    for (auto [x, y] : llvm::zip_equal(shape, other)) {
      if (x != y && x != 1 && y != 1)
        return std::nullopt;
      x = x == 1 ? y : x;
    }
  }
  return shape;
}

/// Strides of an operand along the dimensions of the shape that it is broadcast to.
Shape broadcastStrides(ArrayRef<int64_t> from, ArrayRef<int64_t> to) {
  Shape strides(to.size() - from.size(), 0), own = stridesOf(from);
  for (auto [dim, stride] : llvm::zip_equal(from, own))
    strides.push_back(dim == 1 ? 0 : stride);
  return strides;
}

using Unary = double (*)(double);
using Binary = double (*)(double, double);

Unary unary(StringRef op) {
  return llvm::StringSwitch<Unary>(op)
      .Case("Abs", [](double v) { return std::abs(v); })
      .Case("Cos", [](double v) { return std::cos(v); })
      .Case("Erf", [](double v) { return std::erf(v); })
      .Case("Exp", [](double v) { return std::exp(v); })
      .Case("Floor", [](double v) { return std::floor(v); })
      .Case("Identity", [](double v) { return v; })
      .Case("Log", [](double v) { return std::log(v); })
      .Case("Neg", [](double v) { return -v; })
      .Case("Not", [](double v) { return v == 0 ? 1.0 : 0.0; })
      .Case("Reciprocal", [](double v) { return 1 / v; })
      .Case("Sin", [](double v) { return std::sin(v); })
      .Case("Sqrt", [](double v) { return std::sqrt(v); })
      .Case("Tanh", [](double v) { return std::tanh(v); })
      .Default(nullptr);
}

Binary binary(StringRef op) {
  return llvm::StringSwitch<Binary>(op)
      .Case("Add", [](double a, double b) { return a + b; })
      .Case("And", [](double a, double b) { return a != 0 && b != 0 ? 1.0 : 0.0; })
      .Case("Div", [](double a, double b) { return a / b; })
      .Case("Equal", [](double a, double b) { return a == b ? 1.0 : 0.0; })
      .Case("Greater", [](double a, double b) { return a > b ? 1.0 : 0.0; })
      .Case("GreaterOrEqual", [](double a, double b) { return a >= b ? 1.0 : 0.0; })
      .Case("Less", [](double a, double b) { return a < b ? 1.0 : 0.0; })
      .Case("LessOrEqual", [](double a, double b) { return a <= b ? 1.0 : 0.0; })
      .Case("Max", [](double a, double b) { return std::max(a, b); })
      .Case("Min", [](double a, double b) { return std::min(a, b); })
      .Case("Mul", [](double a, double b) { return a * b; })
      .Case("Or", [](double a, double b) { return a != 0 || b != 0 ? 1.0 : 0.0; })
      .Case("Pow", [](double a, double b) { return std::pow(a, b); })
      .Case("Sub", [](double a, double b) { return a - b; })
      .Default(nullptr);
}

constexpr StringRef kCompare[] = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or"};

/// The value as the type holds it, or nothing if an integer is not exact in a double.
std::optional<double> rounded(Dense::Type type, double value) {
  switch (type) {
  case Dense::Type::Float:
    return static_cast<double>(static_cast<float>(value));
  case Dense::Type::Int:
    value = std::trunc(value);
    return std::abs(value) <= kExactIntegers ? std::optional(value) : std::nullopt;
  case Dense::Type::Bool:
    return value != 0 ? 1.0 : 0.0;
  }
  return std::nullopt;
}

std::optional<Dense> elementwise(StringRef op, ArrayRef<Dense> operands) {
  std::optional<Shape> shape = broadcastShape(operands);
  std::optional<int64_t> count = shape ? countOf(*shape) : std::nullopt;
  bool isWhere = op == "Where";
  Unary one = unary(op);
  Binary two = binary(op);
  if (!count || operands.size() != (isWhere ? 3u : one ? 1u : 2u))
    return std::nullopt;
  Dense::Type type = llvm::is_contained(kCompare, op) ? Dense::Type::Bool : operands[isWhere ? 1 : 0].type;
  Dense result{.type = type, .shape = *shape};
  result.values.resize(*count);
  std::vector<double> columns[3];
  for (auto [i, operand] : llvm::enumerate(operands)) {
    columns[i].resize(*count);
    walk(*shape, broadcastStrides(operand.shape, *shape), 0,
         [&](int64_t at, int64_t offset) { columns[i][at] = operand.values[offset]; });
  }
  for (int64_t i = 0; i < *count; ++i) {
    double value = isWhere ? columns[columns[0][i] != 0 ? 1 : 2][i]
                   : one   ? one(columns[0][i])
                           : two(columns[0][i], columns[1][i]);
    std::optional<double> held = rounded(type, value);
    if (!held)
      return std::nullopt;
    result.values[i] = *held;
  }
  return result;
}

std::optional<Dense> view(const Dense &operand, Shape shape, ArrayRef<int64_t> strides, int64_t start = 0) {
  std::optional<int64_t> count = countOf(shape);
  if (!count)
    return std::nullopt;
  Dense result{.type = operand.type, .shape = shape};
  result.values.resize(*count);
  walk(shape, strides, start, [&](int64_t i, int64_t offset) { result.values[i] = operand.values[offset]; });
  return result;
}

std::optional<Dense> reshape(const Dense &operand, ArrayRef<int64_t> shape) {
  if (countOf(shape) != countOf(operand.shape))
    return std::nullopt;
  Dense result = operand;
  result.shape.assign(shape.begin(), shape.end());
  return result;
}

std::optional<Dense> slice(const Dense &operand, ArrayRef<int64_t> cuts) {
  Shape shape = operand.shape, strides = stridesOf(shape);
  int64_t start = 0;
  for (size_t i = 0; i + 3 < cuts.size(); i += 4) {
    int64_t axis = cuts[i];
    start += cuts[i + 1] * strides[axis];
    shape[axis] = cuts[i + 2];
    strides[axis] *= cuts[i + 3];
  }
  return view(operand, shape, strides, start);
}

std::optional<Dense> concat(ArrayRef<Dense> operands, int64_t axis) {
  Shape shape = operands[0].shape;
  if (axis >= static_cast<int64_t>(shape.size()))
    return std::nullopt;
  shape[axis] = 0;
  for (const Dense &operand : operands) {
    if (operand.shape.size() != shape.size())
      return std::nullopt;
    for (size_t d = 0; d < shape.size(); ++d)
      if (static_cast<int64_t>(d) != axis && operand.shape[d] != shape[d])
        return std::nullopt;
    shape[axis] += operand.shape[axis];
  }
  std::optional<int64_t> count = countOf(shape);
  if (!count)
    return std::nullopt;
  Dense result{.type = operands[0].type, .shape = shape};
  result.values.resize(*count);
  Shape strides = stridesOf(shape);
  int64_t start = 0;
  for (const Dense &operand : operands) {
    walk(operand.shape, strides, start, [&](int64_t i, int64_t offset) { result.values[offset] = operand.values[i]; });
    start += operand.shape[axis] * strides[axis];
  }
  return result;
}

std::optional<Dense> gather(const Dense &data, const Dense &indices, int64_t axis) {
  if (axis >= static_cast<int64_t>(data.shape.size()))
    return std::nullopt;
  int64_t size = data.shape[axis];
  SmallVector<int64_t, 4> head(data.shape.begin(), data.shape.begin() + axis),
      tail(data.shape.begin() + axis + 1, data.shape.end());
  Shape shape = head;
  shape.append(indices.shape);
  shape.append(tail);
  std::optional<int64_t> count = countOf(shape), outer = countOf(head), inner = countOf(tail);
  if (!count || !outer || !inner)
    return std::nullopt;
  Dense result{.type = data.type, .shape = shape};
  for (int64_t o = 0; o < *outer; ++o)
    for (double index : indices.values) {
      int64_t at = static_cast<int64_t>(index < 0 ? index + size : index);
      if (at < 0 || at >= size)
        return std::nullopt;
      auto first = data.values.begin() + (o * size + at) * *inner;
      result.values.insert(result.values.end(), first, first + *inner);
    }
  return result;
}

std::optional<Dense> matmul(const Dense &a, const Dense &b) {
  if (a.shape.size() < 2 || b.shape.size() < 2)
    return std::nullopt;
  int64_t m = a.shape[a.shape.size() - 2], k = a.shape.back(), n = b.shape.back();
  if (b.shape[b.shape.size() - 2] != k)
    return std::nullopt;
  Dense aBatch{.shape = Shape(ArrayRef(a.shape).drop_back(2))}, bBatch{.shape = Shape(ArrayRef(b.shape).drop_back(2))};
  std::optional<Shape> batch = broadcastShape({aBatch, bBatch});
  if (!batch)
    return std::nullopt;
  Shape shape = *batch;
  shape.append({m, n});
  std::optional<int64_t> count = countOf(shape);
  if (!count || *count * k > kMaxElements)
    return std::nullopt;
  Dense result{.type = a.type, .shape = shape};
  result.values.assign(*count, 0);
  Shape aStrides = broadcastStrides(aBatch.shape, *batch), bStrides = broadcastStrides(bBatch.shape, *batch);
  std::vector<int64_t> bStart(*countOf(*batch));
  walk(*batch, bStrides, 0, [&](int64_t i, int64_t offset) { bStart[i] = offset * k * n; });
  walk(*batch, aStrides, 0, [&](int64_t i, int64_t offset) {
    for (int64_t row = 0; row < m; ++row)
      for (int64_t column = 0; column < n; ++column) {
        double sum = 0;
        for (int64_t e = 0; e < k; ++e)
          sum += a.values[offset * m * k + row * k + e] * b.values[bStart[i] + e * n + column];
        result.values[(i * m + row) * n + column] = rounded(a.type, sum).value_or(0);
      }
  });
  return result;
}

} // namespace

bool isElementwise(StringRef op) { return op == "Where" || op == "Cast" || unary(op) || binary(op); }

std::optional<Dense> evaluate(const DenseOp &op, ArrayRef<Dense> operands) {
  StringRef name = op.name;
  const Dense &first = operands[0];
  if (name == "Cast") {
    Dense result = first;
    result.type = static_cast<Dense::Type>(op.numbers[0]);
    for (double &value : result.values) {
      std::optional<double> held = rounded(result.type, value);
      if (!held)
        return std::nullopt;
      value = *held;
    }
    return result;
  }
  if (isElementwise(name))
    return elementwise(name, operands);
  if (name == "Transpose") {
    Shape shape, strides, own = stridesOf(first.shape);
    for (int64_t d : op.numbers) {
      shape.push_back(first.shape[d]);
      strides.push_back(own[d]);
    }
    return view(first, shape, strides);
  }
  if (name == "Reshape")
    return reshape(first, op.numbers);
  if (name == "Expand") {
    Dense target{.shape = Shape(ArrayRef<int64_t>(op.numbers))};
    std::optional<Shape> shape = broadcastShape({first, target});
    return shape ? view(first, *shape, broadcastStrides(first.shape, *shape)) : std::nullopt;
  }
  if (name == "Unsqueeze") {
    Shape shape = first.shape;
    for (int64_t axis : op.numbers)
      shape.insert(shape.begin() + axis, 1);
    return reshape(first, shape);
  }
  if (name == "Squeeze") {
    Shape shape;
    for (auto [d, dim] : llvm::enumerate(first.shape))
      if (!llvm::is_contained(op.numbers, static_cast<int64_t>(d)))
        shape.push_back(dim);
    return reshape(first, shape);
  }
  if (name == "Concat")
    return concat(operands, op.numbers[0]);
  if (name == "Slice")
    return slice(first, op.numbers);
  if (name == "Gather" && operands.size() == 2)
    return gather(first, operands[1], op.numbers[0]);
  if (name == "MatMul" && operands.size() == 2)
    return matmul(first, operands[1]);
  return std::nullopt;
}

} // namespace helix::onnximport
