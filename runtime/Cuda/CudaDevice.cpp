//===- CudaDevice.cpp - Ranks on GPUs: memory and weights ------------------===//
#include "runtime/Cuda/CudaDevice.h"
#include "lib/Artifact/Writer.h"
#include "runtime/Error.h"

#include <algorithm>
#include <numeric>

namespace helix::cuda {
namespace {

constexpr uint64_t kAlignment = 256;

uint64_t aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// Rows and columns of a weight on a rank, as its kernel sees it: [k, n] of a product.
std::pair<uint64_t, uint64_t> sizesOf(const cpu::WeightPlan &plan) {
  uint64_t rows = plan.rank == 2 ? plan.dims[0].local : 1, columns = plan.dims[plan.rank - 1].local;
  return plan.transposed ? std::pair(columns, rows) : std::pair(rows, columns);
}

/// As the host packs it, a weight of codes among them, but a product's is packed on the device.
bool isPackedThere(const artifact::Weight &weight, const cpu::WeightPlan &plan) {
  return plan.use == cpu::WeightUse::Linear && !weight.quantization();
}

uint64_t deviceBytesOf(const artifact::Weight &weight, const cpu::WeightPlan &plan) {
  auto [rows, columns] = sizesOf(plan);
  if (weight.quantization())
    return cpu::quantLayout(plan, quantFormat(weight)).value().bytes;
  if (plan.use == cpu::WeightUse::Linear)
    return linearBytes(rows, columns, plan.dtype);
  return rows * columns * cpu::elementBytes(plan.dtype);
}

cpu::Draw *drawsIn(const HeldPinned &memory, uint64_t at) {
  return reinterpret_cast<cpu::Draw *>(static_cast<std::byte *>(memory.get()) + at);
}

/// The process that runs, as ranks [first, last).
std::pair<uint32_t, uint32_t> ranksHere(const SessionOptions &options, uint32_t ranks) {
  if (!options.processes)
    return {0, ranks};
  const Processes &processes = *options.processes;
  if (processes.count != ranks || processes.index >= ranks)
    throw Error(ErrorCode::ProcessesInvalid,
                "--process " + std::to_string(processes.index) + "/" + std::to_string(processes.count) +
                    ": the artifact has " + counted(ranks, "rank") + ", each of which is a process; give 0/" +
                    std::to_string(ranks) + " to " + std::to_string(ranks - 1) + "/" + std::to_string(ranks) +
                    ", or leave --process out to run all on one GPU");
  return {processes.index, processes.index + 1};
}

} // namespace

bool isForCuda(const artifact::Artifact &artifact) {
  return artifact.images() && artifact.images()->size() != 0 &&
         artifact.images()->Get(0)->triple()->string_view().starts_with("nvptx64");
}

CudaDevice::CudaDevice(const artifact::Artifact &artifact, const SessionOptions &options)
    : artifact(artifact), settings(options), mesh(meshOf(artifact)), layout(layOut(artifact)), gpu(options.gpu),
      kernels(&artifact, gpu, options.roundActivations) {
  std::tie(first, last) = ranksHere(options, mesh.ranks());
  if (options.pinning == Pinning::On)
    throw Error(ErrorCode::ArgumentInvalid, "threads are pinned for ranks on the CPU; leave --pin out");
  if (options.link && options.processes)
    throw Error(ErrorCode::ArgumentInvalid, "an artificial link is for ranks that share a CPU or a GPU; leave "
                                            "--link-latency and --link-bandwidth out, or --process");
  // A warp that waits for the link takes registers that a block of attention may need.
  if (options.link)
    kernels.leaveFree(mesh.ranks() / 2);
  layOutWeights();
  layOutScratch();
}

CudaDevice::~CudaDevice() {
  // Members are given back to the GPU that they are of; graphs before what they use.
  driver().cuCtxSetCurrent(gpu.current());
  for (Program &program : programs)
    program.graph = HeldGraphExec();
}

void CudaDevice::layOutWeights() {
  layout.weightBytes = 0;
  for (uint32_t i = 0; i < layout.weights.size(); ++i) {
    const artifact::Weight &weight = *artifact.weights()->Get(i);
    if (weight.quantization() && quantFormat(weight).activations != cpu::DType::F32)
      throw Error(ErrorCode::CudaShapeUnsupported,
                  "the artifact rounds activations to int8, which the kernels for GPUs "
                  "do not; compile the model without --activations");
    uint64_t bytes = deviceBytesOf(weight, weightPlan(weight, mesh, 0));
    layout.weights[i] = {layout.weightBytes, bytes};
    layout.weightBytes += aligned(bytes);
  }
}

void CudaDevice::layOutScratch() {
  for (const artifact::Entry *entry : *artifact.entries()) {
    streamCount = std::max(streamCount, entry->streams());
    eventCount = std::max(eventCount, entry->events());
  }
  scratchBytes.assign(streamCount, 0);
  for (const artifact::Entry *entry : *artifact.entries())
    for (uint32_t i = 0; entry->commands() && i < entry->commands()->size(); ++i) {
      const artifact::Command &command = *entry->commands()->Get(i);
      uint64_t bytes = 0;
      if (command.work_type() == artifact::Work::PartialAttention) {
        bytes = attentionScratchBytes(attentionOf(artifact, command, first));
      } else if (const auto *work = command.work_as_Linear()) {
        const artifact::Weight &weight = *artifact.weights()->Get(command.inputs()->Get(1)->index());
        LinearArgs args;
        args.dtype = static_cast<DType>(weight.dtype());
        args.rows = work->rows(), args.k = work->k(), args.n = work->n();
        if (!weight.quantization())
          bytes = kernels.scratchBytes(args);
        for (uint32_t rank = first; rank < last && weight.quantization(); ++rank)
          bytes = std::max<uint64_t>(bytes, linearScratchBytes(quantizedLinearOf(artifact, command, rank)));
      }
      uint64_t &most = scratchBytes[command.stream()];
      most = std::max(most, aligned(bytes));
    }
}

uint64_t CudaDevice::pages() const {
  const artifact::KvLayout &kv = *artifact.kv();
  return kv.capacity() / (uint64_t(kv.block()) * mesh.kvp) * kv.slots();
}

MemoryNeeds CudaDevice::memory(uint32_t) const {
  uint64_t slots = isWhole() ? artifact.kv()->slots() : 0, vocabulary = artifact.local_vocabulary();
  uint64_t last = slots * vocabulary * sizeof(float);
  uint64_t lists = slots * drawChunks(vocabulary) * (2 * cpu::kListed * sizeof(uint64_t) + sizeof(DrawSum));
  return {layout.weightBytes, layout.kvBytes,
          aligned(layout.deviceBytes) + aligned(layout.commBytes) + aligned(last) + aligned(lists),
          std::accumulate(scratchBytes.begin(), scratchBytes.end(), exchangeBytes)};
}

uint64_t CudaDevice::sharedMemory() const {
  uint64_t bytes = pages() * sizeof(int32_t);
  for (const artifact::Entry *it : *artifact.entries())
    bytes += uint64_t(it->batch()) * (it->tokens() * sizeof(int64_t) + 2 * sizeof(int32_t)) +
             artifact.kv()->slots() * sizeof(cpu::Draw);
  return bytes;
}

std::string CudaDevice::note() const {
  return kernels.products().empty() ? "" : "products of many rows: " + kernels.products();
}

void CudaDevice::checkMemory() const {
  uint64_t needed = sharedMemory() + memory(first).total() * localRanks();
  if (needed > available())
    throw Error(ErrorCode::MemoryExhausted,
                counted(localRanks(), "rank") + (localRanks() == 1 ? " needs " : " need ") + formatBytes(needed) +
                    " of the GPU (" + gpu.name() + "), " + formatBytes(available()) +
                    " are available; compile the model for a shorter context, a smaller batch or a narrower KV type");
}

void CudaDevice::load(std::span<const Mapping> files, const std::function<void(uint64_t, uint64_t)> &progress) {
  gpu.use();
  checkMemory();
  try {
    allocateAll();
    loadWeights(files, progress);
    connect();
    for (uint32_t i = 0; i < programs.size(); ++i) {
      bind(i);
      // Once as it is, with no tokens: what a kernel or a collective sets up at its first use cannot be captured.
      enqueue(programs[i], /*captured=*/false);
      exchange->finish(main.get(), settings.commTimeout);
      capture(programs[i]);
    }
  } catch (...) {
    programs.clear();
    exchange.reset();
    ranks.clear();
    throw;
  }
}

void CudaDevice::allocateAll() {
  main = makeStream();
  forked = makeEvent(false);
  bool traced = settings.traceSteps != 0;
  if (traced)
    begun = makeEvent(true), ended = makeEvent(true);
  std::vector<int32_t> numbers(pages());
  std::iota(numbers.begin(), numbers.end(), 0);
  table = allocate(numbers.size() * sizeof(int32_t));
  HELIX_CU(cuMemcpyHtoDAsync_v2, table.get(), numbers.data(), numbers.size() * sizeof(int32_t), main.get());
  HELIX_CU(cuStreamSynchronize, main.get());

  auto zeros = [&](uint64_t bytes) {
    HeldMemory memory = allocate(bytes);
    if (bytes != 0)
      HELIX_CU(cuMemsetD8Async, memory.get(), 0, bytes, main.get());
    return memory;
  };
  for (uint32_t r = first; r < last; ++r) {
    Rank &rank = ranks.emplace_back();
    rank.number = r;
    rank.weights = zeros(layout.weightBytes);
    rank.kv = zeros(layout.kvBytes);
    rank.device = zeros(layout.deviceBytes);
    rank.comm = zeros(layout.commBytes);
    if (isWhole()) {
      uint64_t slots = artifact.kv()->slots(), chunks = drawChunks(artifact.local_vocabulary());
      rank.last = zeros(slots * artifact.local_vocabulary() * sizeof(float));
      rank.drawKeys = zeros(slots * chunks * 2 * cpu::kListed * sizeof(uint64_t));
      rank.drawSums = zeros(slots * chunks * sizeof(DrawSum));
    }
    for (uint64_t bytes : scratchBytes)
      rank.scratch.push_back(zeros(bytes));
    for (uint32_t i = 0; i < streamCount; ++i) {
      // Exchanges are waited for: they go before what is computed beside them.
      rank.streams.push_back(makeStream(/*urgent=*/i != 0));
      rank.ready.push_back(makeEvent(false));
      rank.joined.push_back(makeEvent(false));
    }
    for (uint32_t i = 0; i < eventCount; ++i)
      rank.events.push_back(makeEvent(false));
    for (uint32_t i = 0; i < layout.layers.size(); ++i) {
      KvCache cache = cacheOf(artifact, i, r);
      cache.key = reinterpret_cast<void *>(rank.kv.get() + layout.layers[i].key.offset);
      cache.value = reinterpret_cast<void *>(rank.kv.get() + layout.layers[i].value.offset);
      if (layout.layers[i].keyScale.bytes != 0) {
        cache.keyScales = reinterpret_cast<float *>(rank.kv.get() + layout.layers[i].keyScale.offset);
        cache.valueScales = reinterpret_cast<float *>(rank.kv.get() + layout.layers[i].valueScale.offset);
      }
      cache.table = reinterpret_cast<const int32_t *>(table.get());
      rank.caches.push_back(cache);
    }
  }
  for (const artifact::Entry *entry : *artifact.entries()) {
    Program &program = programs.emplace_back(*entry);
    program.drawsAt = aligned(program.inputs.memory.size());
    program.staging = allocatePinned(program.drawsAt + artifact.kv()->slots() * sizeof(cpu::Draw));
    program.input = zeros(program.drawsAt + artifact.kv()->slots() * sizeof(cpu::Draw));
    program.logitsAt = entry->logits_operand();
    program.logitsBytes = program.logitsAt->bytes();
    program.logits = allocatePinned(program.logitsBytes * mesh.ranks());
    program.streams = entry->streams();
    program.isFetched.assign(mesh.ranks(), false);
    if (!isWhole())
      program.gathered = zeros(program.logitsBytes * mesh.ranks());
    std::fill_n(static_cast<std::byte *>(program.staging.get()), program.inputs.memory.size(), std::byte(0));
    std::uninitialized_fill_n(drawsIn(program.staging, program.drawsAt), artifact.kv()->slots(), cpu::Draw());
  }
  HELIX_CU(cuStreamSynchronize, main.get());
  uint64_t firstBytes = allSlots() * (sizeof(int64_t) + sizeof(float));
  firsts = zeros(firstBytes);
  hostFirsts = allocatePinned(firstBytes);
  lastRows = allocatePinned(allSlots() * artifact.local_vocabulary() * sizeof(float));
  isLastFetched.assign(allSlots(), !isWhole());

  uint64_t slots = artifact.kv()->slots();
  lists = allocatePinned(allSlots() * 2 * cpu::kListed * sizeof(cpu::Candidate));
  shares = allocatePinned(allSlots() * sizeof(cpu::Share));
  nextDraws.assign(slots, {});
  lastDraws.assign(slots, {});
  askedDraws = allocatePinned(slots * sizeof(cpu::Draw));
  std::uninitialized_fill_n(drawsIn(askedDraws, 0), slots, cpu::Draw());
  askedDrawsThere = allocate(slots * sizeof(cpu::Draw));
  for (const Rank &rank : ranks)
    for (Prepared &launch : drawsOf(rank, askedDrawsThere.get()))
      askedAtOnce.push_back(std::move(launch));
}

/// A product's weight of numbers is turned on the GPU into the form that its kernel reads: the rows of the file as they
/// are go there first.
void CudaDevice::loadWeights(std::span<const Mapping> files, const std::function<void(uint64_t, uint64_t)> &progress) {
  uint64_t largest = 0, done = 0, total = layout.weightBytes * localRanks();
  auto asStored = [&](uint32_t weight, uint32_t rank) {
    cpu::WeightPlan plan = weightPlan(*artifact.weights()->Get(weight), mesh, rank);
    if (isPackedThere(*artifact.weights()->Get(weight), plan))
      plan.use = cpu::WeightUse::Table, plan.transposed = false;
    return plan;
  };
  auto hostBytes = [&](uint32_t weight, uint32_t rank) {
    return artifact.weights()->Get(weight)->quantization() ? layout.weights[weight].bytes
                                                           : cpu::packedBytes(asStored(weight, rank)).value_or(0);
  };
  for (uint32_t i = 0; i < layout.weights.size(); ++i)
    largest = std::max(largest, hostBytes(i, first));
  HeldPinned host = allocatePinned(largest);
  HeldMemory plain = allocate(largest);
  for (Rank &rank : ranks)
    for (uint32_t i = 0; i < layout.weights.size(); ++i) {
      const artifact::Weight &weight = *artifact.weights()->Get(i);
      cpu::WeightPlan stored = asStored(i, rank.number), plan = weightPlan(weight, mesh, rank.number);
      uint64_t bytes = hostBytes(i, rank.number);
      done += aligned(layout.weights[i].bytes);
      if (plan.isEmpty())
        continue;
      std::span<std::byte> memory(static_cast<std::byte *>(host.get()), bytes);
      if (!loadWeight(weight, stored, files, memory))
        throw Error(ErrorCode::WeightFileInvalid, "a weight of the artifact cannot be loaded; compile the model again");
      Address to = rank.weights.get() + layout.weights[i].offset;
      bool packs = isPackedThere(weight, plan);
      HELIX_CU(cuMemcpyHtoDAsync_v2, packs ? plain.get() : to, memory.data(), bytes, main.get());
      if (packs) {
        auto [k, n] = sizesOf(plan);
        PackArgs args{reinterpret_cast<const void *>(plain.get()),
                      reinterpret_cast<void *>(to),
                      plan.dtype,
                      plan.transposed,
                      k,
                      n};
        for (const Prepared &launch : kernels.prepare(args))
          launch.launch(main.get());
      }
      // The host's memory is the next one's.
      HELIX_CU(cuStreamSynchronize, main.get());
      if (progress)
        progress(done, total);
    }
  if (progress)
    progress(total, total);
}

void CudaDevice::connect() {
  auto portOf = [](Rank &rank) {
    return Port{rank.number, rank.comm.get(), rank.exchange.get(), rank.streams, rank.ready};
  };
  if (!settings.processes) {
    std::vector<Port> ports;
    for (Rank &rank : ranks)
      ports.push_back(portOf(rank));
    exchange = localExchange(mesh, std::move(ports), kernels, settings.link);
    return;
  }
  // A sum needs room for what peers send.
  for (const artifact::Entry *entry : *artifact.entries())
    for (uint32_t i = 0; entry->commands() && i < entry->commands()->size(); ++i)
      if (const auto *work = entry->commands()->Get(i)->work_as_AllReduce())
        exchangeBytes = std::max(exchangeBytes, ncclScratchBytes(collectiveOf(*entry->commands()->Get(i)),
                                                                 mesh.size(static_cast<Axis>(work->axis()))));
  Rank &rank = ranks.front();
  rank.exchange = allocate(exchangeBytes);
  // What makes tokens differ: the artifact, and how products round.
  uint64_t checksum = settings.processes->artifact * 2 + settings.roundActivations;
  exchange =
      ncclExchange(mesh, portOf(rank), kernels, {settings.processes->rendezvous, checksum, settings.commTimeout});
}

void CudaDevice::fetch(float *to, Address from, uint64_t bytes) {
  gpu.use();
  HELIX_CU(cuMemcpyDtoHAsync_v2, to, from, bytes, main.get());
  HELIX_CU(cuStreamSynchronize, main.get());
}

const float *CudaDevice::logits(uint32_t rank, uint32_t entry) {
  Program &program = programs[entry];
  float *row = static_cast<float *>(program.logits.get()) + rank * (program.logitsBytes / sizeof(float));
  if (isWhole() && !program.isFetched[rank])
    fetch(row, address(*program.logitsAt, ranks[rank], program), program.logitsBytes);
  program.isFetched[rank] = true;
  return row;
}

const float *CudaDevice::lastLogits(uint32_t rank, uint32_t slot) {
  uint64_t bytes = artifact.local_vocabulary() * sizeof(float), at = slotOf(rank, slot);
  float *row = static_cast<float *>(lastRows.get()) + at * artifact.local_vocabulary();
  if (!isLastFetched[at])
    fetch(row, ranks[rank].last.get() + slot * bytes, bytes);
  isLastFetched[at] = true;
  return row;
}

std::optional<cpu::Candidate> CudaDevice::firstToken(uint32_t rank, uint32_t slot) {
  if (!isWhole())
    return {};
  nextDraws[slot] = {};
  const auto *ids = static_cast<const int64_t *>(hostFirsts.get());
  return cpu::Candidate{reinterpret_cast<const float *>(ids + allSlots())[slotOf(rank, slot)], ids[slotOf(rank, slot)]};
}

uint64_t CudaDevice::localTokens(uint32_t rank) const {
  uint64_t share = artifact.local_vocabulary(), vocabulary = artifact.vocabulary();
  return std::min(share, vocabulary - std::min(rank * share, vocabulary));
}

/// What the draws on the GPU, one of each slot, ask of a rank's last logits.
std::vector<Prepared> CudaDevice::drawsOf(const Rank &rank, Address draws) {
  DrawArgs args;
  args.logits = reinterpret_cast<const float *>(rank.last.get());
  args.draws = reinterpret_cast<const cpu::Draw *>(draws);
  args.largest = reinterpret_cast<const float *>(firsts.get() + allSlots() * sizeof(int64_t)) + slotOf(rank.number, 0);
  args.keys = reinterpret_cast<uint64_t *>(rank.drawKeys.get());
  args.sums = reinterpret_cast<DrawSum *>(rank.drawSums.get());
  args.lists = static_cast<cpu::Candidate *>(lists.get()) + slotOf(rank.number, 0) * 2 * cpu::kListed;
  args.shares = static_cast<cpu::Share *>(shares.get()) + slotOf(rank.number, 0);
  args.rows = artifact.kv()->slots(), args.stride = artifact.local_vocabulary();
  args.count = isWhole() ? localTokens(rank.number) : 0;
  args.firstId = int64_t(rank.number * artifact.local_vocabulary());
  return kernels.prepare(args);
}

/// Before a run: slots without tokens in it keep what is listed of them.
void CudaDevice::stageDraws(Program &program) {
  cpu::Draw *draws = drawsIn(program.staging, program.drawsAt);
  for (size_t slot = 0; slot < nextDraws.size(); ++slot) {
    if (slot >= program.inputs.qLen.size() || program.inputs.qLen[slot] == 0) {
      draws[slot] = {};
      continue;
    }
    draws[slot] = nextDraws[slot];
    draws[slot].position = uint32_t(program.inputs.past[slot] + program.inputs.qLen[slot]);
    lastDraws[slot] = draws[slot];
  }
}

/// Between steps, in a round trip of its own.
void CudaDevice::ask(uint32_t slot, const cpu::Draw &draw) {
  gpu.use();
  drawsIn(askedDraws, 0)[slot] = draw;
  HELIX_CU(cuMemcpyHtoDAsync_v2, askedDrawsThere.get(), askedDraws.get(), lastDraws.size() * sizeof(cpu::Draw),
           main.get());
  for (const Prepared &launch : askedAtOnce)
    launch.launch(main.get());
  HELIX_CU(cuStreamSynchronize, main.get());
  drawsIn(askedDraws, 0)[slot] = {};
  lastDraws[slot] = draw;
}

bool CudaDevice::list(uint32_t slot, const cpu::Draw &draw, std::span<Shortlist> out) {
  if (!isWhole())
    return false;
  if (lastDraws[slot] != draw)
    ask(slot, draw);
  if (draw.firsts || draw.likeliest)
    nextDraws[slot] = draw;
  for (size_t r = 0; r < out.size(); ++r) {
    uint64_t at = slotOf(uint32_t(r), slot);
    const auto *both = static_cast<const cpu::Candidate *>(lists.get()) + at * 2 * cpu::kListed;
    size_t listed = std::min<size_t>(out[r].count, cpu::kListed);
    if (draw.firsts)
      out[r].firsts = {both, listed};
    if (draw.likeliest)
      out[r].likeliest = {both + cpu::kListed, listed};
    if (draw.shares)
      out[r].share = static_cast<const cpu::Share *>(shares.get())[at];
  }
  return true;
}

/// After a run: what is on the host of earlier ones is of them, but where the logits of all ranks came along.
void CudaDevice::keepLastLogits(uint32_t entry) {
  Program &program = programs[entry];
  size_t vocabulary = artifact.local_vocabulary(), batch = program.inputs.qLen.size();
  if (isWhole()) {
    program.isFetched.assign(mesh.ranks(), false);
    for (uint32_t r = 0; r < mesh.ranks(); ++r)
      for (uint32_t b = 0; b < batch; ++b)
        if (program.inputs.qLen[b] != 0)
          isLastFetched[slotOf(r, b)] = false;
    return;
  }
  bool all = artifact.entries()->Get(entry)->logits() == artifact::LogitRows::All;
  size_t rows = all ? program.inputs.ids.size() / batch : 1;
  for (uint32_t r = 0; r < mesh.ranks(); ++r)
    for (size_t b = 0; b < batch; ++b)
      if (size_t used = size_t(program.inputs.qLen[b]); used != 0)
        std::copy_n(logits(r, entry) + (b * rows + (all ? used - 1 : 0)) * vocabulary, vocabulary,
                    static_cast<float *>(lastRows.get()) + slotOf(r, uint32_t(b)) * vocabulary);
}

void CudaDevice::fill(uint32_t slot, uint64_t tokens) {
  gpu.use();
  for (Rank &rank : ranks)
    for (const KvCache &cache : rank.caches)
      for (const Prepared &launch : kernels.prepare(KvFillArgs{cache, slot, tokens}))
        launch.launch(main.get());
  HELIX_CU(cuStreamSynchronize, main.get());
}

} // namespace helix::cuda
