//===- EmulatedDriver.cpp - libcuda without a GPU --------------------------===//
//
// The functions of runtime/Cuda/Driver.h on the host, as a library for HELIX_LIBCUDA. Kernels of the library run on the
// emulation of test/unit/Cuda. In place of an artifact's own kernels, which are PTX, those of the same names run of the
// artifact for the CPU that the environment variable HELIX_EMULATED_KERNELS names.
//
// Work is done when it is put on a stream. A captured graph keeps its nodes and what each waits for, and is replayed in
// another order each time that these allow: what needs an edge that is not there goes wrong sooner or later. What a
// capture forbids returns an error. HELIX_EMULATED_LOG names a file for a line per call.
//
// Time is made up, too: every piece of work takes a microsecond and what it waits for the clock, and begins when what
// it waits for is done, however much else goes on. No real time is behind it.
//
//===-----------------------------------------------------------------------===//
#include "lib/Artifact/Reader.h"
#include "runtime/Core/Images.h"
#include "runtime/Cuda/Driver.h"
#include "test/unit/Cuda/Emulation.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace emulated {

using helix::cuda::Address;
using Tail = std::set<size_t>; ///< nodes

enum Result {
  Success = 0,
  InvalidValue = 1,
  OutOfMemory = 2,
  NotFound = 500,
  NotReady = 600,
  LaunchFailed = 719,
  CaptureUnsupported = 900,
  CaptureUnjoined = 904,
  CaptureIsolation = 905,
};

struct Node {
  std::string name;
  std::function<void()> run;
  Tail after;
};

/// A capture that is under way.
struct Capture {
  std::vector<Node> nodes;
  std::set<CUstream_st *> streams;
  CUstream_st *origin;
};

std::unique_ptr<Capture> capture;
std::map<uintptr_t, size_t> allocations;
bool stalled = false;
std::mt19937 choice(1);
constexpr uint64_t kWorkNanoseconds = 1000;
uint64_t &now = helix::cuda::emulation::clock;

void log(const std::string &line) {
  const char *path = std::getenv("HELIX_EMULATED_LOG");
  if (std::FILE *file = path ? std::fopen(path, "a") : nullptr) {
    std::fprintf(file, "%s\n", line.c_str());
    std::fclose(file);
  }
}

bool isMemory(Address at, size_t bytes) {
  auto it = allocations.upper_bound(at);
  return it != allocations.begin() && at + bytes <= std::prev(it)->first + std::prev(it)->second;
}

/// Kernels of the artifact for the CPU.
struct Generated {
  helix::artifact::LoadedArtifact file;
  std::unique_ptr<helix::Images> images;

  /// Of the path that the environment names now; kept.
  static Generated &get() {
    static std::map<std::string, Generated> all;
    const char *path = std::getenv("HELIX_EMULATED_KERNELS");
    auto [it, isNew] = all.try_emplace(path ? path : "");
    helix::artifact::Error error;
    if (isNew && path)
      it->second.file = helix::artifact::readArtifact(path, error);
    if (isNew && it->second.file)
      it->second.images = std::make_unique<helix::Images>(*it->second.file);
    return it->second;
  }
};

} // namespace emulated

using namespace emulated;

struct CUctx_st {};
struct CUstream_st {
  Tail tail;
};
struct CUevent_st {
  Tail tail;
  Capture *capture = nullptr;
  uint64_t time = 0; ///< nanoseconds
};
struct CUmod_st {};
struct CUfunc_st {
  std::string name;
  size_t argumentBytes = 0; ///< of a kernel of the library
  Generated *of = nullptr;  ///< or one of an artifact,
  uint32_t number = 0;      ///< by number
  int allowedShared = 48 << 10;
};
struct CUgraph_st {
  std::vector<Node> nodes;
};
struct CUgraphExec_st {
  std::vector<Node> nodes;
};

namespace {

CUctx_st context;

bool isCaptured(CUstream_st *stream) { return capture && capture->streams.count(stream); }

/// Does the work, or notes it.
int put(CUstream_st *stream, std::string name, std::function<void()> run) {
  log((isCaptured(stream) ? "node " : "do ") + name);
  if (isCaptured(stream)) {
    capture->nodes.push_back({std::move(name), std::move(run), stream->tail});
    stream->tail = {capture->nodes.size() - 1};
    return Success;
  }
  if (capture)
    return CaptureIsolation; // nothing else is meant to go on meanwhile
  run();
  now += kWorkNanoseconds;
  return Success;
}

void replay(const std::vector<Node> &nodes) {
  std::vector<size_t> waits(nodes.size()), ready;
  std::vector<std::vector<size_t>> next(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    waits[i] = nodes[i].after.size();
    for (size_t before : nodes[i].after)
      next[before].push_back(i);
    if (waits[i] == 0)
      ready.push_back(i);
  }
  const uint64_t begin = now;
  uint64_t end = begin;
  std::vector<uint64_t> ends(nodes.size());
  while (!ready.empty()) {
    std::swap(ready[choice() % ready.size()], ready.back());
    size_t node = ready.back();
    ready.pop_back();
    now = begin;
    for (size_t before : nodes[node].after)
      now = std::max(now, ends[before]);
    nodes[node].run();
    end = std::max(end, ends[node] = now += kWorkNanoseconds);
    for (size_t after : next[node])
      if (--waits[after] == 0)
        ready.push_back(after);
  }
  now = end;
}

} // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cuInit(unsigned) { return Success; }
API cuDriverGetVersion(int *version) {
  *version = 13000;
  return Success;
}
API cuGetErrorName(int, const char **name) {
  *name = "CUDA_ERROR_EMULATED";
  return Success;
}
API cuGetErrorString(int result, const char **text) {
  static std::string kept;
  kept = std::to_string(result);
  *text = kept.c_str();
  return Success;
}
API cuDeviceGetCount(int *count) {
  *count = 1;
  return Success;
}
API cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return Success;
}
API cuDeviceGetName(char *name, int size, int) {
  std::snprintf(name, size_t(size), "an emulated GPU");
  return Success;
}
API cuDeviceGetAttribute(int *value, int attribute, int) {
  using namespace helix::cuda;
  *value = attribute == kMultiprocessors           ? 3
           : attribute == kComputeMajor            ? 9
           : attribute == kSharedPerBlockOptin     ? 232448
           : attribute == kSharedPerMultiprocessor ? 233472
                                                   : 0;
  return Success;
}
API cuDevicePrimaryCtxRetain(CUctx_st **out, int) {
  *out = &context;
  return Success;
}
API cuDevicePrimaryCtxRelease_v2(int) {
  log("release, memory left: " + std::to_string(allocations.size()));
  return Success;
}
API cuCtxSetCurrent(CUctx_st *) { return Success; }
API cuMemGetInfo_v2(size_t *free, size_t *total) {
  *free = *total = size_t(16) << 30;
  return Success;
}
API cuMemAlloc_v2(Address *out, size_t bytes) {
  log("alloc");
  if (capture)
    return CaptureUnsupported;
  void *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!memory || bytes == 0)
    return bytes == 0 ? InvalidValue : OutOfMemory;
  std::memset(memory, 0xff, bytes);
  *out = reinterpret_cast<Address>(memory);
  allocations[uintptr_t(memory)] = bytes;
  return Success;
}
API cuMemFree_v2(Address address) {
  if (allocations.erase(address) == 0)
    return InvalidValue;
  std::free(reinterpret_cast<void *>(address));
  return Success;
}
API cuMemHostAlloc(void **out, size_t bytes, unsigned) {
  log("alloc of the host");
  *out = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *out ? Success : OutOfMemory;
}
API cuMemFreeHost(void *memory) {
  std::free(memory);
  return Success;
}

namespace {
int copy(const char *name, void *to, const void *from, size_t bytes, CUstream_st *stream) {
  return put(stream, name, [=] { std::memmove(to, from, bytes); });
}
void *pointer(Address address) { return reinterpret_cast<void *>(address); }
} // namespace

API cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, CUstream_st *stream) {
  return isMemory(to, bytes) ? copy("copy to the GPU", pointer(to), from, bytes, stream) : InvalidValue;
}
API cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, CUstream_st *stream) {
  return isMemory(from, bytes) ? copy("copy to the host", to, pointer(from), bytes, stream) : InvalidValue;
}
API cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, CUstream_st *stream) {
  return isMemory(to, bytes) && isMemory(from, bytes) ? copy("copy", pointer(to), pointer(from), bytes, stream)
                                                      : InvalidValue;
}
API cuMemsetD8Async(Address to, unsigned char value, size_t bytes, CUstream_st *stream) {
  if (!isMemory(to, bytes))
    return InvalidValue;
  return put(stream, "set", [=] { std::memset(pointer(to), value, bytes); });
}
API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return Success;
}
API cuStreamCreateWithPriority(CUstream_st **out, unsigned, int) {
  *out = new CUstream_st;
  return Success;
}
API cuStreamDestroy_v2(CUstream_st *stream) {
  delete stream;
  return Success;
}
API cuStreamSynchronize(CUstream_st *) {
  log("synchronize");
  return capture ? CaptureUnsupported : Success;
}
API cuStreamQuery(CUstream_st *) { return capture ? CaptureUnsupported : stalled ? NotReady : Success; }
API cuStreamBeginCapture_v2(CUstream_st *stream, int) {
  log("begin capture");
  if (capture)
    return CaptureUnsupported;
  capture = std::make_unique<Capture>();
  capture->origin = stream;
  capture->streams = {stream};
  stream->tail.clear();
  return Success;
}
API cuStreamEndCapture(CUstream_st *stream, CUgraph_st **out) {
  log("end capture");
  std::unique_ptr<Capture> done = std::move(capture);
  if (!done || done->origin != stream)
    return CaptureUnsupported;
  // Everything must lead to what is last on the first stream.
  std::vector<bool> reached(done->nodes.size());
  std::vector<size_t> open(stream->tail.begin(), stream->tail.end());
  while (!open.empty()) {
    size_t node = open.back();
    open.pop_back();
    if (reached[node])
      continue;
    reached[node] = true;
    open.insert(open.end(), done->nodes[node].after.begin(), done->nodes[node].after.end());
  }
  if (!std::all_of(reached.begin(), reached.end(), [](bool it) { return it; }))
    return CaptureUnjoined;
  *out = new CUgraph_st{std::move(done->nodes)};
  return Success;
}
API cuEventCreate(CUevent_st **out, unsigned) {
  *out = new CUevent_st;
  return Success;
}
API cuEventDestroy_v2(CUevent_st *event) {
  delete event;
  return Success;
}
API cuEventRecord(CUevent_st *event, CUstream_st *stream) {
  event->capture = isCaptured(stream) ? capture.get() : nullptr;
  event->tail = stream->tail;
  event->time = now;
  return Success;
}
API cuEventRecordWithFlags(CUevent_st *event, CUstream_st *stream, unsigned flags) {
  if (!isCaptured(stream) || !(flags & helix::cuda::kRecordExternal))
    return flags != 0 ? InvalidValue : cuEventRecord(event, stream);
  return put(stream, "record", [=] { event->time = now; });
}
API cuStreamWaitEvent(CUstream_st *stream, CUevent_st *event, unsigned) {
  if (!capture)
    return Success;
  if (event->capture != capture.get())
    return isCaptured(stream) ? CaptureIsolation : Success;
  if (!isCaptured(stream)) {
    capture->streams.insert(stream);
    stream->tail.clear();
  }
  stream->tail.insert(event->tail.begin(), event->tail.end());
  return Success;
}
API cuEventElapsedTime_v2(float *milliseconds, CUevent_st *from, CUevent_st *to) {
  *milliseconds = float(double(to->time - from->time) * 1e-6);
  return Success;
}
API cuGraphInstantiateWithFlags(CUgraphExec_st **out, CUgraph_st *graph, unsigned long long) {
  *out = new CUgraphExec_st{graph->nodes};
  log("graph of " + std::to_string(graph->nodes.size()) + " nodes");
  return Success;
}
API cuGraphLaunch(CUgraphExec_st *graph, CUstream_st *stream) {
  log("launch graph");
  if (capture)
    return CaptureUnsupported;
  auto begin = std::chrono::steady_clock::now();
  uint64_t before = now;
  replay(graph->nodes);
  std::this_thread::sleep_until(begin + std::chrono::nanoseconds(now - before));
  return Success;
}
API cuGraphDestroy(CUgraph_st *graph) {
  delete graph;
  return Success;
}
API cuGraphExecDestroy(CUgraphExec_st *graph) {
  delete graph;
  return Success;
}
API cuModuleLoadData(CUmod_st **out, const void *) {
  *out = new CUmod_st;
  return Success;
}
API cuModuleUnload(CUmod_st *module) {
  delete module;
  return Success;
}
API cuModuleGetFunction(CUfunc_st **out, CUmod_st *, const char *name) {
  static std::vector<std::unique_ptr<CUfunc_st>> functions; // handles are never given back
  CUfunc_st function;
  function.name = name;
  auto &library = helix::cuda::emulation::kernels();
  if (auto it = library.find(name); it != library.end()) {
    function.argumentBytes = it->second.argumentBytes;
  } else {
    auto &generated = Generated::get();
    for (uint32_t i = 0; generated.file && i < generated.file->kernels()->size(); ++i)
      if (generated.file->kernels()->Get(i)->symbol()->string_view() == name)
        function.of = &generated, function.number = i;
    if (!function.of)
      return NotFound;
  }
  functions.push_back(std::make_unique<CUfunc_st>(function));
  *out = functions.back().get();
  return Success;
}
API cuFuncSetAttribute(CUfunc_st *function, int attribute, int value) {
  if (attribute != helix::cuda::kMaxDynamicShared || value > 232448)
    return InvalidValue;
  function->allowedShared = value;
  return Success;
}
API cuLaunchKernel(CUfunc_st *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, CUstream_st *stream, void **parameters, void **) {
  if (gx == 0 || gy == 0 || gz == 0 || int(shared) > function->allowedShared || bx * by * bz > 1024)
    return InvalidValue;
  if (function->of) {
    const helix::artifact::Kernel &kernel = *function->of->file->kernels()->Get(function->number);
    std::vector<void *> buffers;
    for (uint32_t i = 0; i < kernel.buffers()->size(); ++i) {
      buffers.push_back(*static_cast<void **>(parameters[i]));
      if (!isMemory(Address(buffers.back()), kernel.buffers()->Get(i)))
        return InvalidValue;
    }
    HelixKernel body = function->of->images->kernel(function->number);
    return put(stream, function->name, [body, buffers, groups = kernel.groups()] {
      for (uint32_t group = 0; group < groups; ++group)
        body(buffers.data(), nullptr, group);
    });
  }
  helix::cuda::Launch launch;
  launch.kernel = function->name.c_str();
  launch.grid = {gx, gy, gz};
  launch.block = {bx, by, bz};
  launch.sharedBytes = shared;
  auto *argument = static_cast<const std::byte *>(parameters[0]);
  launch.argument.assign(argument, argument + function->argumentBytes);
  return put(stream, function->name, [launch] { helix::cuda::emulation::run(launch); });
}
API cuLaunchHostFunc(CUstream_st *stream, void (*function)(void *), void *data) {
  return put(stream, "host function", [=] { function(data); });
}

/// For the emulation of cuBLASLt: whether these bytes are the GPU's.
extern "C" __attribute__((visibility("default"))) bool helixEmulatedIsMemory(Address at, size_t bytes) {
  return isMemory(at, bytes);
}

/// For the emulation of NCCL: what is on the streams does not end.
extern "C" __attribute__((visibility("default"))) void helixEmulatedStall(int stall) { stalled = stall != 0; }
