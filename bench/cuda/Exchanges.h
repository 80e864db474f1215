//===- Exchanges.h - One all-to-all of outputs with their log-sum-exp, or two ===//
#ifndef HELIX_BENCH_CUDA_EXCHANGES_H
#define HELIX_BENCH_CUDA_EXCHANGES_H

#include "runtime/Core/Device.h"

#include <optional>

namespace helix::cuda::test {

/// Times the all-to-all of attention among four ranks, in one message and in two, in turns: on one GPU, or over NCCL as
/// the process that `processes` says. Prints a JSON object per line with `name` and `seconds`, a list.
void benchExchanges(const std::optional<Processes> &processes, int rounds);

} // namespace helix::cuda::test

#endif // HELIX_BENCH_CUDA_EXCHANGES_H
