//===- CpuDevice.cpp - Ranks that are threads of this process --------------===//
#include "runtime/Core/CpuDevice.h"

#include <algorithm>
#include <limits>
#include <new>
#include <numeric>
#include <system_error>

namespace helix {
namespace {

unsigned threadCount(const SessionOptions &options, uint32_t ranks) {
  return std::max(options.threads != 0 ? options.threads : cpusOfThread(), ranks);
}

/// The error that is being handled, as one of a rank. To be called within a catch block.
Error caughtBy(uint32_t rank) {
  std::string who = "rank " + std::to_string(rank);
  try {
    throw;
  } catch (const Error &error) {
    return error;
  } catch (const std::bad_alloc &) {
    return {ErrorCode::MemoryExhausted, who + " ran out of memory"};
  } catch (const std::exception &error) {
    return {ErrorCode::SystemFailure, who + ": " + error.what()};
  }
}

} // namespace

CpuDevice::CpuDevice(const artifact::Artifact &artifact, const SessionOptions &options)
    : artifact(artifact), settings(options), mesh(meshOf(artifact)), layout(layOut(artifact)),
      threads(threadCount(options, mesh.ranks())), images(artifact) {
  std::vector<Cpus> nodes = nodesOfThread();
  if (options.pinning == Pinning::Off ||
      (options.pinning == Pinning::Auto && (nodes.size() < 2 || threads != cpusOfThread())))
    return;
  std::vector<unsigned> counts;
  for (uint32_t r = 0; r < mesh.ranks(); ++r)
    counts.push_back(threadsOf(r));
  if (std::optional<std::vector<Cpus>> placed = placeThreads(std::move(nodes), counts))
    cpus = std::move(*placed);
  else if (options.pinning == Pinning::On)
    throw Error(ErrorCode::ArgumentInvalid,
                counted(threads, "thread") +
                    " cannot each stay on a CPU of their own, as "
                    "there are fewer; ask for fewer with --threads, of which each rank needs one, or leave --pin out");
}

uint64_t CpuDevice::pages() const {
  const artifact::KvLayout &kv = *artifact.kv();
  return kv.capacity() / (uint64_t(kv.block()) * mesh.kvp) * kv.slots();
}

uint64_t CpuDevice::sharedMemory() const {
  uint64_t bytes = pages() * sizeof(int32_t);
  for (const artifact::Entry *it : *artifact.entries())
    bytes += uint64_t(it->batch()) * (it->tokens() * sizeof(int64_t) + 2 * sizeof(int32_t));
  return bytes;
}

void CpuDevice::checkMemory() const {
  uint64_t needed = sharedMemory();
  for (uint32_t r = 0; r < mesh.ranks(); ++r)
    if (__builtin_add_overflow(needed, memory(r).total(), &needed))
      needed = std::numeric_limits<uint64_t>::max();
  if (needed > available())
    throw Error(ErrorCode::MemoryExhausted, counted(mesh.ranks(), "rank") + (mesh.ranks() == 1 ? " needs " : " need ") +
                                                formatBytes(needed) + ", " + formatBytes(available()) +
                                                " are available; compile the model for a shorter context, a smaller "
                                                "batch or a narrower KV type");
}

/// Runs body(rank) on a thread per rank and waits for all. If one throws, the others are told to stop, and the error
/// that came first, not those that followed from it, is thrown here.
template <typename Body> void CpuDevice::onAllRanks(const Body &body) {
  // The first rank's thread is the caller's, and the caller's again afterwards.
  OnCpu stay(cpus.empty() ? std::nullopt : std::optional(cpus[0][0]));
  rankThreads->parallel(mesh.ranks(), [&](size_t begin, size_t end, unsigned) {
    for (size_t r = begin; r < end; ++r) {
      try {
        body(uint32_t(r));
        continue;
      } catch (...) {
        errors[r] = caughtBy(uint32_t(r));
      }
      communicators[r]->abort(errors[r]->what());
    }
  });
  const Error *first = nullptr;
  for (const std::optional<Error> &error : errors)
    if (error && (!first || first->code() == ErrorCode::CommAborted))
      first = &*error;
  if (first)
    throw *first;
}

void CpuDevice::load(std::span<const Mapping> files, const std::function<void(uint64_t, uint64_t)> &progress) {
  checkMemory();
  try {
    initialise(files, progress);
  } catch (...) {
    rankThreads.reset();
    communicators.clear();
    executors.clear();
    stepInputs.clear();
    errors.clear();
    throw;
  }
}

void CpuDevice::initialise(std::span<const Mapping> files, const std::function<void(uint64_t, uint64_t)> &progress) {
  table = Mapping::zeros(pages() * sizeof(int32_t));
  auto *numbers = reinterpret_cast<int32_t *>(table.data());
  std::iota(numbers, numbers + table.size() / sizeof(int32_t), 0);
  for (const artifact::Entry *it : *artifact.entries())
    stepInputs.emplace_back(*it);

  try {
    std::vector<std::byte *> segments;
    bool spin = threads <= cpusOfThread();
    for (uint32_t r = 0; r < mesh.ranks(); ++r) {
      executors.push_back(
          std::make_unique<Executor>(artifact, layout, r, threadsOf(r), spin, cpus.empty() ? Cpus() : cpus[r]));
      segments.push_back(executors.back()->segment());
    }
    InprocOptions options;
    options.timeout = settings.commTimeout;
    options.spin = spin;
    options.link = settings.link;
    communicators = inprocCommunicators(mesh, segments, options);
    Cpus firsts;
    for (const Cpus &own : cpus)
      firsts.push_back(own.front());
    rankThreads = std::make_unique<Workers>(mesh.ranks(), false, firsts);
  } catch (const std::system_error &error) {
    throw Error(ErrorCode::SystemFailure, "cannot start " + std::to_string(threads) + " threads: " + error.what() +
                                              "; ask for fewer with --threads");
  }
  errors.resize(mesh.ranks());

  std::atomic<uint64_t> done{0};
  uint64_t total = layout.weightBytes * mesh.ranks();
  onAllRanks([&](uint32_t r) {
    // The first rank's thread is the caller's.
    std::function<void()> report;
    if (r == 0 && progress)
      report = [&] { progress(done.load(), total); };
    executors[r]->load(files, done, report);
    executors[r]->bind(images, stepInputs, numbers, *communicators[r]);
  });
  if (progress)
    progress(total, total);
}

void CpuDevice::run(uint32_t entry, std::span<Traffic> sent, StepTrace *times) {
  onAllRanks([&](uint32_t r) { sent[r] = executors[r]->run(entry, times ? &times->ranks[r] : nullptr); });
}

void CpuDevice::fill(uint32_t slot, uint64_t tokens) {
  onAllRanks([&](uint32_t r) { executors[r]->fillCache(slot, tokens); });
}

} // namespace helix
