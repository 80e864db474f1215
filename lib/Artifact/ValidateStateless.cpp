//===- ValidateStateless.cpp - Stateless entries and their commands --------===//
#include "lib/Artifact/ValidateDetail.h"

#include <cmath>
#include <limits>
#include <set>
#include <vector>

namespace helix::artifact {
using namespace detail;

uint64_t elementsOf(const Port &port) {
  uint64_t elements = 1;
  for (flatbuffers::uoffset_t i = 0; i < count(port.dims()); ++i)
    elements *= port.dims()->Get(i);
  return elements;
}

namespace {

constexpr flatbuffers::uoffset_t kMaxRank = 8;

/// FlatBuffers' verifier looks at a vector's length field alone, which is aligned to four bytes.
bool isAligned(const flatbuffers::Vector<uint64_t> *list) {
  return !list || reinterpret_cast<uintptr_t>(list->Data()) % alignof(uint64_t) == 0;
}

/// 1 to 2^40 elements in up to eight dimensions.
bool validateDims(const flatbuffers::Vector<uint64_t> *dims, const std::string &where, Error &error) {
  if (!isAligned(dims) || count(dims) > kMaxRank)
    return refuse(error, where, "its shape is not aligned, or has more than 8 dimensions");
  uint64_t elements = 1;
  for (flatbuffers::uoffset_t i = 0; i < count(dims); ++i) {
    std::optional<uint64_t> more = product({elements, dims->Get(i)});
    if (!more || *more == 0 || *more > (uint64_t(1) << 40))
      return refuse(error, where, "its shape is out of range");
    elements = *more;
  }
  return true;
}

using Ports = flatbuffers::Vector<flatbuffers::Offset<Port>>;

bool isPortType(DType dtype, bool given) {
  return dtype <= DType::BF16 || (given && (dtype == DType::I64 || dtype == DType::Bool));
}

/// Checks what is given to the function, or what it gives.
bool validateEach(const Ports *ports, const std::string &where, Error &error, bool given) {
  std::set<std::string_view> names;
  if (count(ports) > kMaxList)
    return refuse(error, where, "there are more than " + std::to_string(kMaxList));
  for (flatbuffers::uoffset_t i = 0; i < count(ports); ++i) {
    const Port &port = *ports->Get(i);
    std::string place = where + " " + std::to_string(i);
    if (!isText(port.name()) || !names.insert(port.name()->string_view()).second)
      return refuse(error, place, "its name is missing, or that of another");
    if (!isPortType(port.dtype(), given))
      return refuse(error, place, "its element type is not one that it can have");
    if (!validateDims(port.dims(), place, error))
      return false;
  }
  return true;
}

/// The sizes of an input that is there if `given`.
void add(std::vector<Expected> &inputs, bool given, const Expected &expected) {
  if (given)
    inputs.push_back(expected);
}

Expected integers(std::initializer_list<uint64_t> sizes) {
  std::optional<uint64_t> elements = product(sizes);
  return {Kind::Integers, elements ? product({*elements, sizeof(int64_t)}) : std::nullopt};
}

bool validateWork(const Context &context, const DenseAttention &work) {
  bool isScores = work.stage() != ScoreStage::Values;
  if (work.stage() > ScoreStage::MAX || work.batch() == 0 || work.heads() == 0 || work.kv_heads() == 0 ||
      work.tokens() == 0 || work.keys() == 0 || work.key_dim() == 0 || (work.value_dim() == 0) != isScores ||
      work.heads() % work.kv_heads() != 0)
    return context.refuse("a size is zero, its stage is unknown, or its heads are not whole groups");
  constexpr uint64_t farthest = std::numeric_limits<int32_t>::max();
  if (work.offset() > farthest || work.left() < -1 || work.left() > int64_t(farthest) || work.right() < -1 ||
      work.right() > int64_t(farthest) || work.keys() > farthest || work.tokens() > farthest)
    return context.refuse("its positions or bounds are out of range");
  constexpr double largest = std::numeric_limits<float>::max();
  if (!(std::abs(work.scale()) <= largest) || !(work.softcap() >= 0 && work.softcap() <= largest))
    return context.refuse("its scale is not a finite f32, or its softcap is negative or not one");
  std::vector<Expected> inputs = {arena({work.batch(), work.heads(), work.tokens(), work.key_dim()}),
                                  arena({work.batch(), work.kv_heads(), work.keys(), work.key_dim()})};
  add(inputs, !isScores, arena({work.batch(), work.kv_heads(), work.keys(), work.value_dim()}));
  if (const auto *mask = work.mask_shape(); count(mask) != 0) {
    if (count(mask) != 4)
      return context.refuse("its mask has not four dimensions");
    uint32_t whole[] = {work.batch(), work.heads(), work.tokens()};
    for (unsigned i = 0; i < 3; ++i)
      if (mask->Get(i) != 1 && mask->Get(i) != whole[i])
        return context.refuse("its mask does not repeat to its scores");
    if (mask->Get(3) == 0 || mask->Get(3) > work.keys())
      return context.refuse("its mask is not for its keys");
    Expected expected = arena({mask->Get(0), mask->Get(1), mask->Get(2), mask->Get(3)});
    if (work.truths())
      expected = {Kind::Truths, product({mask->Get(0), mask->Get(1), mask->Get(2), mask->Get(3)})};
    inputs.push_back(expected);
  }
  add(inputs, work.lengths(), integers({work.batch()}));
  Expected result[] = {arena({work.batch(), work.heads(), work.tokens(), isScores ? work.keys() : work.value_dim()})};
  return match(context, inputs, result);
}

bool validateWork(const Context &context, const Rotate &work) {
  if (work.batch() == 0 || work.heads() == 0 || work.tokens() == 0 || work.half() == 0 || work.rows() == 0 ||
      uint64_t(work.half()) * 2 > work.dim())
    return context.refuse("a size is zero, or it rotates more than its heads' width");
  if (!work.positions() && work.rows() != uint64_t(work.batch()) * work.tokens())
    return context.refuse("it has neither positions nor a row for each token");
  Expected x = arena({work.batch(), work.heads(), work.tokens(), work.dim()}),
           table = arena({work.rows(), work.half()});
  std::vector<Expected> inputs = {x, table, table};
  add(inputs, work.positions(), integers({work.batch(), work.tokens()}));
  return match(context, inputs, std::span(&x, 1));
}

bool validateWork(const Context &context, const Scatter &work) {
  if (work.batch() == 0 || work.outer() == 0 || work.tokens() == 0 || work.inner() == 0 ||
      work.tokens() > work.capacity())
    return context.refuse("a size is zero, or it writes more than its cache holds");
  Expected cache = arena({work.batch(), work.outer(), work.capacity(), work.inner()});
  std::vector<Expected> inputs = {arena({work.batch(), work.outer(), work.tokens(), work.inner()}), cache};
  add(inputs, work.indices(), integers({work.batch()}));
  return match(context, inputs, std::span(&cache, 1));
}

bool validateWork(const Context &context, const Transpose &work) {
  if (count(work.shape()) == 0 || !validateDims(work.shape(), context.where, context.error))
    return count(work.shape()) != 0 ? false : context.refuse("it has no dimensions");
  if (count(work.permutation()) != count(work.shape()))
    return context.refuse("its permutation is not of its dimensions");
  unsigned seen = 0;
  uint64_t elements = 1;
  for (flatbuffers::uoffset_t i = 0; i < count(work.shape()); ++i) {
    uint32_t from = work.permutation()->Get(i);
    if (from >= count(work.shape()) || (seen >> from & 1) != 0)
      return context.refuse("its permutation is none");
    seen |= 1u << from;
    elements *= work.shape()->Get(i);
  }
  Expected x = arena({elements});
  return match(context, std::span(&x, 1), std::span(&x, 1));
}

} // namespace

bool detail::validateStateless(const Context &context) {
  switch (context.command.work_type()) {
  case Work::DenseAttention:
    return validateWork(context, *context.command.work_as_DenseAttention());
  case Work::Rotate:
    return validateWork(context, *context.command.work_as_Rotate());
  case Work::Scatter:
    return validateWork(context, *context.command.work_as_Scatter());
  default:
    return validateWork(context, *context.command.work_as_Transpose());
  }
}

bool detail::validatePorts(const Artifact &artifact, const Entry &entry, const std::string &where, Error &error) {
  if (!isStateless(artifact) || axisSize(*artifact.mesh(), Axis::N) != 1)
    return refuse(error, where, "a stateless entry is alone, on one rank");
  if (entry.batch() != 1 || entry.tokens() != 1 || entry.logits_operand() || artifact.vocabulary() != 0 ||
      artifact.local_vocabulary() != 0 || artifact.kv())
    return refuse(error, where, "it is stateless and has slots, logits, a vocabulary or a KV layout");
  if (!validateEach(entry.inputs(), where + ", input", error, /*given=*/true) ||
      !validateEach(entry.outputs(), where + ", output", error, /*given=*/false))
    return false;
  if (count(entry.outputs()) == 0)
    return refuse(error, where, "it gives nothing");
  for (flatbuffers::uoffset_t i = 0; i < count(entry.outputs()); ++i) {
    const Port &port = *entry.outputs()->Get(i);
    std::string place = where + ", output " + std::to_string(i);
    const Operand *operand = port.place();
    if (!operand || (operand->space() != Space::Device && operand->space() != Space::Comm) ||
        operand->bytes() != innerBytes(port))
      return refuse(error, place, "it is not in an arena, or does not have the bytes of its shape");
    if (!validatePlace(artifact, entry, *operand, place, error))
      return false;
  }
  return true;
}

} // namespace helix::artifact
