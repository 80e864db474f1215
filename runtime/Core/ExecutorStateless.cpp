//===- ExecutorStateless.cpp - Commands of stateless entries ---------------===//
#include "runtime/Core/Executor.h"
#include "runtime/Error.h"

#include <limits>
#include <string>

namespace helix {
namespace {

/// Throws unless every number is from `least` to `most`.
void checkWithin(std::span<const int64_t> numbers, int64_t least, int64_t most, const char *what) {
  if (cpu::areWithin(numbers, least, most))
    return;
  throw Error(ErrorCode::InputOutOfRange, std::string(what) + " of the function must be from " + std::to_string(least) +
                                              " to " + std::to_string(most) +
                                              ", but one is not; the outputs are not valid");
}

} // namespace

Executor::Call Executor::bindStateless(const artifact::Command &command) const {
  auto in = [&](uint32_t i) { return address(*command.inputs()->Get(i)); };
  auto floats = [](void *pointer) { return static_cast<float *>(pointer); };
  auto integers = [](void *pointer) { return static_cast<const int64_t *>(pointer); };
  float *y = floats(address(*command.outputs()->Get(0)));
  if (const auto *work = command.work_as_DenseAttention()) {
    cpu::DenseAttentionArgs args;
    uint32_t next = 0;
    args.q = floats(in(next++));
    args.key = floats(in(next++));
    args.stage = static_cast<cpu::ScoreStage>(work->stage());
    if (args.stage == cpu::ScoreStage::Values)
      args.value = floats(in(next++));
    if (work->mask_shape() && work->mask_shape()->size() != 0) {
      for (uint32_t i = 0; i < 4; ++i)
        args.maskShape[i] = work->mask_shape()->Get(i);
      if (work->truths())
        args.truths = static_cast<const uint8_t *>(in(next++));
      else
        args.mask = floats(in(next++));
    }
    if (work->lengths())
      args.lengths = integers(in(next++));
    args.y = y;
    args.batch = work->batch(), args.heads = work->heads(), args.kvHeads = work->kv_heads();
    args.tokens = work->tokens(), args.keys = work->keys();
    args.keyDim = work->key_dim(), args.valueDim = work->value_dim();
    args.scale = float(work->scale()), args.softcap = float(work->softcap());
    args.offset = int64_t(work->offset()), args.left = work->left(), args.right = work->right();
    return args;
  }
  if (const auto *work = command.work_as_Rotate())
    return cpu::RotateArgs{floats(in(0)),
                           floats(in(1)),
                           floats(in(2)),
                           work->positions() ? integers(in(3)) : nullptr,
                           y,
                           work->batch(),
                           work->heads(),
                           work->tokens(),
                           work->dim(),
                           work->half(),
                           work->rows(),
                           work->interleaved()};
  if (const auto *work = command.work_as_Scatter())
    return cpu::ScatterArgs{floats(in(0)),
                            floats(in(1)),
                            work->indices() ? integers(in(2)) : nullptr,
                            y,
                            work->batch(),
                            work->outer(),
                            work->tokens(),
                            work->capacity(),
                            work->inner(),
                            work->circular()};
  const auto &work = *command.work_as_Transpose();
  cpu::TransposeArgs args;
  args.x = floats(in(0));
  args.y = y;
  args.rank = work.shape()->size();
  for (unsigned d = 0; d < args.rank; ++d) {
    uint32_t from = work.permutation()->Get(d);
    args.sizes[d] = work.shape()->Get(from);
    args.strides[d] = 1;
    for (uint32_t behind = from + 1; behind < args.rank; ++behind)
      args.strides[d] *= work.shape()->Get(behind);
  }
  return args;
}

void Executor::execute(const cpu::DenseAttentionArgs &args, const Bound &command) {
  if (args.lengths)
    checkWithin({args.lengths, args.batch}, 0, args.keys, "lengths (nonpad_kv_seqlen)");
  auto *floats = reinterpret_cast<float *>(scratch.data());
  size_t stride = layout.scratchBytes / sizeof(float);
  each(cpu::denseAttentionItems(args), command.parallel, [&](size_t begin, size_t end, unsigned worker) {
    cpu::denseAttention(args, begin, end, floats + worker * stride);
  });
}

void Executor::execute(const cpu::RotateArgs &args, const Bound &command) {
  if (args.positions)
    checkWithin({args.positions, size_t(args.batch) * args.tokens}, 0, int64_t(args.rows) - 1, "positions");
  each(size_t(args.batch) * args.heads * args.tokens, command.parallel,
       [&](size_t begin, size_t end, unsigned) { cpu::rotate(args, begin, end); });
}

void Executor::execute(const cpu::ScatterArgs &args, const Bound &command) {
  int64_t last = args.circular ? std::numeric_limits<int64_t>::max() : int64_t(args.capacity - args.tokens);
  if (args.indices)
    checkWithin({args.indices, args.batch}, 0, last, "indices of what is written");
  each(args.batch * args.outer, command.parallel,
       [&](size_t begin, size_t end, unsigned) { cpu::scatter(args, begin, end); });
}

void Executor::execute(const cpu::TransposeArgs &args, const Bound &command) {
  each(cpu::transposeItems(args), command.parallel,
       [&](size_t begin, size_t end, unsigned) { cpu::transpose(args, begin, end); });
}

} // namespace helix
