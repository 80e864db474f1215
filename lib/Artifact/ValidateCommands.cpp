//===- ValidateCommands.cpp - Commands against the shapes of their work ----===//
#include "lib/Artifact/ValidateDetail.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace helix::artifact {
using namespace detail;

namespace {

const char *nameOf(Kind kind) {
  switch (kind) {
  case Kind::Arena:
    return "in an arena";
  case Kind::Comm:
    return "in communication memory";
  case Kind::Table:
    return "a weight used as a table";
  case Kind::Matrix:
    return "a weight used in a product";
  case Kind::Vector:
    return "a weight used as a vector";
  case Kind::Ids:
    return "the token ids";
  case Kind::Past:
    return "the lengths";
  case Kind::QLen:
    return "the numbers of new tokens";
  case Kind::Cache:
    return "a KV layer";
  case Kind::Integers:
    return "an input of integers";
  case Kind::Truths:
    return "an input of truths";
  }
  return "";
}

bool isArena(const Operand &operand) { return operand.space() == Space::Device || operand.space() == Space::Comm; }

bool isStateless(const Context &context) { return context.entry.kind() == EntryKind::Stateless; }

/// One of the three inputs of an entry that is not stateless.
bool isInput(const Context &context, const Operand &operand, uint32_t index) {
  return operand.space() == Space::Input && operand.index() == index && !isStateless(context);
}

/// An input of a stateless entry, of a type that is one of these inside.
bool isPort(const Context &context, const Operand &operand, std::initializer_list<DType> dtypes) {
  if (operand.space() != Space::Input || !isStateless(context))
    return false;
  DType dtype = context.entry.inputs()->Get(operand.index())->dtype();
  return std::find(dtypes.begin(), dtypes.end(), dtype) != dtypes.end();
}

bool isFloatPort(const Context &context, const Operand &operand) {
  return isPort(context, operand, {DType::F32, DType::F16, DType::BF16});
}

bool isWeight(const Context &context, const Operand &operand, WeightUse use) {
  return operand.space() == Space::Weight && context.artifact.weights()->Get(operand.index())->use() == use;
}

bool isKind(const Context &context, const Operand &operand, Kind kind) {
  switch (kind) {
  case Kind::Arena:
    return isArena(operand) || isFloatPort(context, operand);
  case Kind::Comm:
    return operand.space() == Space::Comm;
  case Kind::Table:
    return isWeight(context, operand, WeightUse::Table);
  case Kind::Matrix:
    return isWeight(context, operand, WeightUse::Linear);
  case Kind::Vector:
    return isWeight(context, operand, WeightUse::Vector);
  case Kind::Ids:
    return isInput(context, operand, 0);
  case Kind::Past:
    return isInput(context, operand, 1);
  case Kind::QLen:
    return isInput(context, operand, 2);
  case Kind::Cache:
    return operand.space() == Space::Kv;
  case Kind::Integers:
    return isPort(context, operand, {DType::I64});
  case Kind::Truths:
    return isPort(context, operand, {DType::Bool});
  }
  return false;
}

bool overlap(const Operand &a, const Operand &b) {
  return isArena(a) && a.space() == b.space() && a.offset() < b.offset() + b.bytes() &&
         b.offset() < a.offset() + a.bytes();
}

} // namespace

bool detail::match(const Context &context, std::span<const Expected> inputs, std::span<const Expected> outputs,
                   bool disjoint) {
  auto check = [&](const auto *operands, std::span<const Expected> expected, const char *side) {
    if (count(operands) != expected.size())
      return context.refuse("it has " + std::to_string(count(operands)) + " " + side + "s, its work takes " +
                            std::to_string(expected.size()));
    flatbuffers::uoffset_t i = 0;
    for (const Expected &want : expected) {
      const Operand &operand = *operands->Get(i);
      std::string name = side + (" " + std::to_string(i++));
      if (!isKind(context, operand, want.kind))
        return context.refuse(name + " is not " + nameOf(want.kind));
      if (!want.bytes || operand.bytes() != *want.bytes)
        return context.refuse(name + " has " + std::to_string(operand.bytes()) + " bytes, its shape has " +
                              (want.bytes ? std::to_string(*want.bytes) : "too many"));
    }
    return true;
  };
  if (!check(context.command.inputs(), inputs, "input") || !check(context.command.outputs(), outputs, "output"))
    return false;
  for (unsigned o = 0; o < outputs.size(); ++o)
    if (!isArena(context.output(o)))
      return context.refuse("output " + std::to_string(o) + " is not in an arena");
  for (unsigned o = 0; disjoint && o < outputs.size(); ++o)
    for (unsigned i = 0; i < inputs.size(); ++i)
      if (overlap(context.output(o), context.input(i)))
        return context.refuse("output " + std::to_string(o) + " lies over input " + std::to_string(i));
  return true;
}

Expected detail::arena(std::initializer_list<uint64_t> sizes) {
  std::optional<uint64_t> elements = product(sizes);
  return {Kind::Arena, elements ? product({*elements, sizeof(float)}) : std::nullopt};
}

namespace {

bool match(const Context &context, std::initializer_list<Expected> inputs, std::initializer_list<Expected> outputs,
           bool disjoint = true) {
  return match(context, std::span(inputs.begin(), inputs.size()), std::span(outputs.begin(), outputs.size()), disjoint);
}

Expected ids(const Context &context) { return {Kind::Ids, context.rows() * 8}; }
Expected past(const Context &context) { return {Kind::Past, uint64_t(context.entry.batch()) * 4}; }
Expected qLen(const Context &context) { return {Kind::QLen, uint64_t(context.entry.batch()) * 4}; }
Expected cache() { return {Kind::Cache, 0}; }

/// A weight's bytes were compared with its local shape when the operand's place was checked.
Expected weight(const Context &context, Kind kind, unsigned input) {
  return {kind, count(context.command.inputs()) > input ? std::optional(context.input(input).bytes()) : 0};
}

bool hasShape(const Context &context, const Operand &operand, uint64_t rows, uint64_t columns) {
  const Weight &weight = *context.artifact.weights()->Get(operand.index());
  if (weight.transposed())
    std::swap(rows, columns);
  if (weight.dims()->Get(0)->local() == rows && weight.dims()->Get(1)->local() == columns)
    return true;
  return context.refuse("its weight " + quoted(weight.name()) + " has another local shape");
}

bool hasTokens(const Context &context, uint64_t batch, uint64_t tokens) {
  return (batch == context.entry.batch() && tokens == context.entry.tokens()) ||
         context.refuse("its batch or tokens are not its entry's");
}

template <typename Work> bool hasLayer(const Context &context, const Work &work, const Operand &operand) {
  const KvLayer &layer = *context.artifact.kv()->layers()->Get(operand.index());
  return (work.key_dim() == layer.key_dim() && work.value_dim() == layer.value_dim()) ||
         context.refuse("its widths are not those of its KV layer");
}

bool validateWork(const Context &context, const Embedding &work) {
  if (work.rows() != context.rows() || work.hidden() == 0 || work.vocabulary() == 0)
    return context.refuse("its rows are not its entry's, or a size is zero");
  return match(context, {ids(context), weight(context, work.tied() ? Kind::Matrix : Kind::Table, 1)},
               {arena({work.rows(), work.hidden()})}) &&
         hasShape(context, context.input(1), work.tied() ? work.hidden() : work.vocabulary(),
                  work.tied() ? work.vocabulary() : work.hidden());
}

bool validateWork(const Context &context, const Linear &work) {
  if (work.rows() == 0 || work.k() == 0 || work.n() == 0)
    return context.refuse("a size is zero");
  return match(context, {arena({work.rows(), work.k()}), weight(context, Kind::Matrix, 1)},
               {arena({work.rows(), work.n()})}) &&
         hasShape(context, context.input(1), work.k(), work.n());
}

bool validateWork(const Context &context, const KvAppend &work) {
  if (!hasTokens(context, work.batch(), work.tokens()) ||
      !match(context,
             {arena({work.batch(), work.tokens(), work.heads(), work.key_dim()}),
              arena({work.batch(), work.tokens(), work.heads(), work.value_dim()}), past(context), qLen(context),
              cache()},
             {}) ||
      !hasLayer(context, work, context.input(4)))
    return false;
  return work.heads() == context.artifact.kv()->layers()->Get(context.input(4).index())->heads() ||
         context.refuse("its heads are not those of its KV layer");
}

bool validateWork(const Context &context, const PartialAttention &work) {
  if (work.heads() == 0 || work.padded_heads() < work.heads() ||
      work.padded_heads() % context.artifact.mesh()->kvp() != 0)
    return context.refuse("its padded heads are fewer than its heads, or not a multiple of kvp");
  constexpr double largest = std::numeric_limits<float>::max();
  if (!(std::abs(work.scale()) <= largest))
    return context.refuse("its scale is not a finite f32");
  if (!(work.softcap() >= 0 && work.softcap() <= largest))
    return context.refuse("its softcap is negative or not a finite f32");
  if (!hasTokens(context, work.batch(), work.tokens()))
    return false;
  auto inside = [](uint32_t begin, uint32_t count, uint32_t all) { return begin < all && count <= all - begin; };
  if (!inside(work.batch_begin(), work.batch_count(), work.batch()) ||
      !inside(work.token_begin(), work.token_count(), work.tokens()))
    return context.refuse("its chunk of sequences or of tokens leaves its batch or tokens");
  std::vector<Expected> inputs = {arena({work.batch(), work.tokens(), work.heads(), work.key_dim()}), cache(),
                                  past(context), qLen(context)};
  if (work.slopes())
    inputs.push_back({Kind::Vector, uint64_t(work.heads()) * sizeof(float)});
  Expected send[] = {
      arena({batchChunk(work).count, tokenChunk(work).count, work.padded_heads(), uint64_t(work.value_dim()) + 1})};
  if (!match(context, inputs, send) || !hasLayer(context, work, context.input(1)))
    return false;
  return work.heads() % context.artifact.kv()->layers()->Get(context.input(1).index())->heads() == 0 ||
         context.refuse("its heads are not a multiple of its KV layer's");
}

bool validateWork(const Context &context, const MergeAttention &work) {
  if (work.peers() == 0 || work.batch() == 0 || work.tokens() == 0 || work.heads() == 0 || work.value_dim() == 0)
    return context.refuse("a size is zero");
  bool tokens = work.along() == ChunkDim::Tokens;
  if (work.along() > ChunkDim::MAX || count(work.chunks()) > kMaxList)
    return context.refuse("what it is chunked along is unknown, or its chunks are more than " +
                          std::to_string(kMaxList));
  uint64_t all = tokens ? work.tokens() : work.batch(), covered = 0;
  std::vector<Expected> stacked;
  auto add = [&](uint64_t size) {
    stacked.push_back(arena({work.peers(), tokens ? work.batch() : size, tokens ? size : work.tokens(), work.heads(),
                             uint64_t(work.value_dim()) + 1}));
    covered += size;
  };
  for (flatbuffers::uoffset_t i = 0; i < count(work.chunks()); ++i) {
    if (work.chunks()->Get(i) == 0)
      return context.refuse("a chunk of it is empty");
    add(work.chunks()->Get(i));
  }
  if (stacked.empty())
    add(all);
  if (covered != all)
    return context.refuse("its chunks sum to " + std::to_string(covered) + ", not to " + std::to_string(all));
  Expected whole[] = {arena({work.batch(), work.tokens(), work.heads(), work.value_dim()})};
  if (work.sinks())
    stacked.push_back({Kind::Vector, uint64_t(work.heads()) * sizeof(float)});
  return match(context, stacked, whole);
}

bool validateWork(const Context &context, const Concat &work) {
  if (work.rows() == 0 || count(work.widths()) == 0 || count(work.widths()) > kMaxList)
    return context.refuse("it has no rows, or not 1 to " + std::to_string(kMaxList) + " widths");
  // FlatBuffers' verifier looks at a vector's length field alone, which is aligned to four bytes.
  if (reinterpret_cast<uintptr_t>(work.widths()->Data()) % alignof(uint64_t) != 0)
    return context.refuse("its list of widths is not aligned");
  std::vector<Expected> parts;
  uint64_t width = 0;
  for (uint64_t part : *work.widths()) {
    if (part == 0 || __builtin_add_overflow(width, part, &width))
      return context.refuse("a width is zero or out of range");
    parts.push_back(arena({work.rows(), part}));
  }
  Expected whole[] = {arena({work.rows(), width})};
  return match(context, parts, whole);
}

template <typename Event> bool validateEvent(const Context &context, const Event &work) {
  return match(context, std::span<const Expected>(), std::span<const Expected>()) &&
         (work.event() < context.entry.events() || context.refuse("its event is not one of its entry's"));
}

bool validateWork(const Context &context, const LastToken &work) {
  return hasTokens(context, work.batch(), work.tokens()) &&
         match(context, {arena({work.batch(), work.tokens(), work.hidden()}), qLen(context)},
               {arena({work.batch(), work.hidden()})});
}

bool validateWork(const Context &context, const Generated &work) {
  if (work.kernel() >= count(context.artifact.kernels()))
    return context.refuse("its kernel is not in the list");
  const Kernel &kernel = *context.artifact.kernels()->Get(work.kernel());
  auto inputs = count(context.command.inputs()), outputs = count(context.command.outputs());
  if (count(kernel.buffers()) != uint64_t(inputs) + outputs)
    return context.refuse("it has " + std::to_string(uint64_t(inputs) + outputs) + " operands, kernel " +
                          quoted(kernel.symbol()) + " takes " + std::to_string(count(kernel.buffers())));
  for (flatbuffers::uoffset_t i = 0; i < inputs + outputs; ++i) {
    const Operand &operand = i < inputs ? context.input(i) : context.output(i - inputs);
    bool isInput = isStateless(context) ? isFloatPort(context, operand) : operand.space() == Space::Input;
    bool readable = i < inputs && (isInput || isWeight(context, operand, WeightUse::Vector));
    if (!isArena(operand) && !readable)
      return context.refuse("operand " + std::to_string(i) + " is not what a generated kernel can use");
    if (operand.bytes() != kernel.buffers()->Get(i))
      return context.refuse("operand " + std::to_string(i) + " has " + std::to_string(operand.bytes()) +
                            " bytes, kernel " + quoted(kernel.symbol()) + " takes " +
                            std::to_string(kernel.buffers()->Get(i)));
  }
  return true;
}

bool validateWork(const Context &context, const AllToAll &work) {
  if (work.axis() > Axis::MAX || work.chunk() == 0 || work.chunk() % sizeof(float) != 0)
    return context.refuse("its axis is unknown, or its chunk is not whole elements");
  std::optional<uint64_t> bytes = product({axisSize(*context.artifact.mesh(), work.axis()), work.chunk()});
  return match(context, {{Kind::Comm, bytes}}, {{Kind::Comm, bytes}});
}

bool validateWork(const Context &context, const AllReduce &work) {
  if (work.axis() > Axis::MAX || work.elements() == 0)
    return context.refuse("its axis is unknown, or it has no elements");
  std::optional<uint64_t> bytes = product({work.elements(), sizeof(float)});
  if (!match(context, {{Kind::Comm, bytes}}, {{Kind::Comm, bytes}}, /*disjoint=*/false))
    return false;
  // In place, or apart.
  const Operand &partial = context.input(0), &whole = context.output(0);
  return partial.offset() == whole.offset() || !overlap(partial, whole) ||
         context.refuse("its output lies over part of its input");
}

/// Whether an entry of its kind may do the work: there are no slots in a stateless one, and no tensors that are given
/// in another.
bool belongs(const Context &context) {
  switch (context.command.work_type()) {
  case Work::Linear:
  case Work::Generated:
  case Work::Concat:
  case Work::Record:
  case Work::Wait:
    return true;
  case Work::DenseAttention:
  case Work::Rotate:
  case Work::Scatter:
  case Work::Transpose:
    return isStateless(context);
  default:
    return !isStateless(context);
  }
}

bool validateWork(const Context &context) {
  const Command &command = context.command;
  if (!command.work())
    return context.refuse("it has no work");
  if (!belongs(context))
    return context.refuse("its work does not belong to an entry of this kind");
  switch (command.work_type()) {
  case Work::Embedding:
    return validateWork(context, *command.work_as_Embedding());
  case Work::Linear:
    return validateWork(context, *command.work_as_Linear());
  case Work::KvAppend:
    return validateWork(context, *command.work_as_KvAppend());
  case Work::PartialAttention:
    return validateWork(context, *command.work_as_PartialAttention());
  case Work::MergeAttention:
    return validateWork(context, *command.work_as_MergeAttention());
  case Work::LastToken:
    return validateWork(context, *command.work_as_LastToken());
  case Work::Generated:
    return validateWork(context, *command.work_as_Generated());
  case Work::AllToAll:
    return validateWork(context, *command.work_as_AllToAll());
  case Work::AllReduce:
    return validateWork(context, *command.work_as_AllReduce());
  case Work::Concat:
    return validateWork(context, *command.work_as_Concat());
  case Work::Record:
    return validateEvent(context, *command.work_as_Record());
  case Work::Wait:
    return validateEvent(context, *command.work_as_Wait());
  case Work::DenseAttention:
  case Work::Rotate:
  case Work::Scatter:
  case Work::Transpose:
    return validateStateless(context);
  case Work::NONE:
    break;
  }
  return context.refuse("its work is unknown");
}

bool validateCost(const Context &context) {
  const Cost *cost = context.command.cost();
  if (!cost)
    return true;
  for (double value :
       {cost->bytes(), cost->bytes_per_query(), cost->bytes_per_cached(), cost->bytes_per_query_cached(), cost->flops(),
        cost->flops_per_query(), cost->flops_per_cached(), cost->flops_per_query_cached()})
    if (!std::isfinite(value))
      return context.refuse("a coefficient of its cost is not finite");
  return true;
}

} // namespace

bool detail::validatePlace(const Artifact &artifact, const Entry &entry, const Operand &operand,
                           const std::string &where, Error &error) {
  uint64_t arenaBytes = operand.space() == Space::Comm ? entry.comm_bytes() : entry.device_bytes();
  bool inside = false;
  switch (operand.space()) {
  case Space::Device:
  case Space::Comm:
    inside = operand.index() == 0 && operand.offset() % kArenaAlignment == 0 && operand.bytes() <= arenaBytes &&
             operand.offset() <= arenaBytes - operand.bytes();
    break;
  case Space::Weight:
    inside = operand.index() < count(artifact.weights()) && operand.offset() == 0 &&
             operand.bytes() == heldBytes(*artifact.weights()->Get(operand.index()));
    break;
  case Space::Kv:
    inside = artifact.kv() && operand.index() < count(artifact.kv()->layers()) && operand.offset() == 0 &&
             operand.bytes() == 0;
    break;
  case Space::Input: {
    if (entry.kind() == EntryKind::Stateless) {
      inside = operand.index() < count(entry.inputs()) && operand.offset() == 0 &&
               operand.bytes() == innerBytes(*entry.inputs()->Get(operand.index()));
      break;
    }
    uint64_t batch = entry.batch();
    inside = operand.index() < 3 && operand.offset() == 0 &&
             operand.bytes() == (operand.index() == 0 ? batch * entry.tokens() * 8 : batch * 4);
    break;
  }
  }
  return inside ||
         refuse(error, where,
                "an operand in space " + std::to_string(int(operand.space())) + ", index " +
                    std::to_string(operand.index()) + ", offset " + std::to_string(operand.offset()) + ", " +
                    std::to_string(operand.bytes()) + " bytes is not inside it, not aligned, or not all of it");
}

bool detail::validateCommands(const Artifact &artifact, const Entry &entry, const std::string &where, Error &error) {
  for (flatbuffers::uoffset_t i = 0; i < count(entry.commands()); ++i) {
    const Command &command = *entry.commands()->Get(i);
    std::string place = where + ", command " + std::to_string(i);
    if (command.work_type() <= Work::MAX)
      place += std::string(" (") + EnumNameWork(command.work_type()) + " of " + quoted(command.source()) + ")";
    for (const auto *operands : {command.inputs(), command.outputs()})
      for (flatbuffers::uoffset_t j = 0; j < count(operands); ++j)
        if (!validatePlace(artifact, entry, *operands->Get(j), place, error))
          return false;
    Context context{artifact, entry, command, place, error};
    if (command.phase() > Phase::MAX)
      return context.refuse("its phase is unknown");
    if (!validateWork(context) || !validateCost(context))
      return false;
  }
  return true;
}

} // namespace helix::artifact
