//===- Emulation.cpp - CUDA kernels on the host ----------------------------===//
// A fortified longjmp refuses to go to another stack.
#undef _FORTIFY_SOURCE

#include "Emulation.h"

#include "runtime/Cpu/Convert.h"

#include <bit>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <ucontext.h>
#include <utility>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HELIX_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif
#endif

namespace helix::cuda {

emulation::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

uint64_t clock = 0;

namespace {

[[noreturn]] void fail(const char *what) {
  std::fprintf(stderr, "emulated kernel: %s (block %u %u, thread %u %u)\n", what, blockIdx.x, blockIdx.y, threadIdx.x,
               threadIdx.y);
  std::abort();
}

constexpr size_t kStackBytes = 256 * 1024, kGuardBytes = 256;

struct Copy {
  void *to;
  const void *from; ///< null: zeros
};

/// A thread of the block. It begins as a context; from then on it is left and come back to by jumps, which unlike
/// swapcontext take no system calls.
struct Fiber {
  ucontext_t context;
  std::jmp_buf place;
  std::unique_ptr<std::byte[]> stack;
  Index index;
  bool isBegun = false, isDone = false;
  const uint64_t *waitsFor = nullptr; ///< a barrier's generation that must move on from `seen`
  uint64_t seen = 0;
  std::vector<Copy> open;               ///< copies of no group yet
  std::deque<std::vector<Copy>> groups; ///< that were not waited for, the oldest first
};

struct Barrier {
  uint32_t arrived = 0;
  uint64_t generation = 0;
};

struct Warp : Barrier {
  void *slots[32];
  void (*operation)(void *const *) = nullptr;
};

/// The block that runs.
struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  size_t current = 0;
  std::jmp_buf scheduler;
  const std::function<void(const std::byte *)> *body;
  const std::byte *argument;
  std::byte *shared;
#ifdef HELIX_ADDRESS_SANITIZER
  const void *schedulerStack = nullptr;
  size_t schedulerStackBytes = 0;
#endif
};
Block *block = nullptr;

/// Runs other threads of the block until the barrier has moved on.
void waitFor(const Barrier &barrier) {
  Fiber &self = block->fibers[block->current];
  self.waitsFor = &barrier.generation;
  self.seen = barrier.generation;
#ifdef HELIX_ADDRESS_SANITIZER
  void *fake;
  __sanitizer_start_switch_fiber(&fake, block->schedulerStack, block->schedulerStackBytes);
#endif
  if (_setjmp(self.place) == 0)
    _longjmp(block->scheduler, 1);
#ifdef HELIX_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  self.waitsFor = nullptr;
}

[[noreturn]] void start() {
#ifdef HELIX_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, &block->schedulerStack, &block->schedulerStackBytes);
#endif
  (*block->body)(block->argument);
  Fiber &self = block->fibers[block->current];
  self.isDone = true;
#ifdef HELIX_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(nullptr, block->schedulerStack, block->schedulerStackBytes);
#endif
  _longjmp(block->scheduler, 1);
}

void resume(Fiber &fiber) {
  threadIdx = fiber.index;
#ifdef HELIX_ADDRESS_SANITIZER
  void *fake;
  __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), kStackBytes);
#endif
  if (_setjmp(block->scheduler) == 0) {
    if (std::exchange(fiber.isBegun, true))
      _longjmp(fiber.place, 1);
    setcontext(&fiber.context);
  }
#ifdef HELIX_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void runBlock(bool descending) {
  size_t count = block->fibers.size(), left = count;
  for (Fiber &fiber : block->fibers) {
    fiber.isBegun = fiber.isDone = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack = {fiber.stack.get(), 0, kStackBytes};
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, start, 0);
  }
  for (Warp &warp : block->warps)
    warp.arrived = 0;
  block->barrier.arrived = 0;
  while (left != 0) {
    bool moved = false;
    for (size_t i = 0; i < count; ++i) {
      block->current = descending ? count - 1 - i : i;
      Fiber &fiber = block->fibers[block->current];
      if (fiber.isDone || (fiber.waitsFor && *fiber.waitsFor == fiber.seen))
        continue;
      moved = true;
      resume(fiber);
      left -= fiber.isDone;
    }
    if (!moved)
      fail("threads wait for others that will not come");
  }
  for (Fiber &fiber : block->fibers)
    if (!fiber.open.empty() || !fiber.groups.empty())
      fail("a copy was never waited for");
}

struct Matrices {
  uint32_t (*out)[4];
  const uint16_t *row;
};

template <bool transposed> void loadAll(Matrices *const *lanes) {
  for (int lane = 0; lane < 32; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint16_t half[2];
      for (int i = 0; i < 2; ++i) {
        int row = transposed ? lane % 4 * 2 + i : lane / 4, column = transposed ? lane / 4 : lane % 4 * 2 + i;
        half[i] = lanes[8 * matrix + row]->row[column];
      }
      (*lanes[lane]->out)[matrix] = half[0] | uint32_t(half[1]) << 16;
    }
}

struct Product {
  float (*c)[4];
  const uint32_t (*a)[4];
  uint32_t b[2];
  float (*decode)(uint16_t);
};

void multiplyAll(Product *const *lanes) {
  // As mma.m16n8k16 deals the matrices' elements to lanes.
  float a[16][16], b[16][8];
  auto decode = [&](uint32_t pair, int i) { return lanes[0]->decode(uint16_t(pair >> 16 * i)); };
  for (int lane = 0; lane < 32; ++lane) {
    int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 2; ++i) {
      for (int part = 0; part < 4; ++part)
        a[g + part % 2 * 8][2 * t + i + part / 2 * 8] = decode((*lanes[lane]->a)[part], i);
      for (int part = 0; part < 2; ++part)
        b[2 * t + i + part * 8][g] = decode(lanes[lane]->b[part], i);
    }
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      double sum = 0;
      for (int k = 0; k < 16; ++k)
        sum += double(a[row][k]) * b[k][column];
      (*lanes[lane]->c)[i] += float(sum);
    }
}

struct Tf32Product {
  float (*c)[4];
  const float (*a)[4];
  float b[2];
};

void multiplyAllTf32(Tf32Product *const *lanes) {
  // As mma.m16n8k8 deals the matrices' elements to lanes.
  float a[16][8], b[8][8];
  auto check = [](float x) {
    if ((std::bit_cast<uint32_t>(x) & 0x1fff) != 0 && x == x)
      fail("an operand that tf32 does not hold");
    return x;
  };
  for (int lane = 0; lane < 32; ++lane) {
    int g = lane / 4, t = lane % 4;
    for (int part = 0; part < 4; ++part)
      a[g + part % 2 * 8][t + part / 2 * 4] = check((*lanes[lane]->a)[part]);
    for (int part = 0; part < 2; ++part)
      b[t + part * 4][g] = check(lanes[lane]->b[part]);
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      double sum = 0;
      for (int k = 0; k < 8; ++k)
        sum += double(a[lane / 4 + i / 2 * 8][k]) * b[k][lane % 4 * 2 + i % 2];
      (*lanes[lane]->c)[i] += float(sum);
    }
}

struct Shuffle {
  uint32_t value, result;
  int from;
};

void shuffleAll(Shuffle *const *lanes) {
  for (int lane = 0; lane < 32; ++lane)
    lanes[lane]->result = lanes[lanes[lane]->from & 31]->value;
}

void anyOf(bool *const *lanes) {
  bool any = false;
  for (int lane = 0; lane < 32; ++lane)
    any |= *lanes[lane];
  for (int lane = 0; lane < 32; ++lane)
    *lanes[lane] = any;
}

void nothing(void *const *) {}

uint32_t laneOf() { return (threadIdx.x + threadIdx.y * blockDim.x) % 32; }

} // namespace

std::map<std::string, Kernel> &kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

void run(const Launch &launch) {
  static bool descending = false;
  auto found = kernels().find(launch.kernel);
  if (found == kernels().end() || found->second.argumentBytes != launch.argument.size())
    fail("no such kernel, or not with such an argument");
  size_t threads = size_t(launch.block[0]) * launch.block[1] * launch.block[2];
  if (threads == 0 || threads % 32 != 0 || threads > 1024 || launch.grid[1] > 65535 || launch.grid[2] > 65535 ||
      launch.grid[0] == 0 || launch.grid[1] == 0 || launch.grid[2] == 0 || launch.grid[0] > INT32_MAX)
    fail("not a geometry that CUDA takes");
  // 128-byte alignment, and a margin at whose end a stray write shows.
  auto *shared =
      static_cast<std::byte *>(std::aligned_alloc(128, (launch.sharedBytes + kGuardBytes + 127) / 128 * 128));
  Block current{std::vector<Fiber>(threads), std::vector<Warp>(threads / 32), {},    0, {},
                &found->second.body,         launch.argument.data(),          shared};
  block = &current;
  blockDim = {launch.block[0], launch.block[1], launch.block[2]};
  gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
  for (size_t i = 0; i < threads; ++i) {
    current.fibers[i].stack = std::make_unique_for_overwrite<std::byte[]>(kStackBytes);
    current.fibers[i].index = {uint32_t(i % blockDim.x), uint32_t(i / blockDim.x % blockDim.y),
                               uint32_t(i / blockDim.x / blockDim.y)};
  }
  for (uint32_t z = 0; z < gridDim.z; ++z)
    for (uint32_t y = 0; y < gridDim.y; ++y)
      for (uint32_t x = 0; x < gridDim.x; ++x) {
        blockIdx = {x, y, z};
        std::memset(shared, 0xff, launch.sharedBytes + kGuardBytes);
        runBlock(descending = !descending);
        for (size_t i = 0; i < kGuardBytes; ++i)
          if (shared[launch.sharedBytes + i] != std::byte(0xff))
            fail("a write past the end of shared memory");
      }
  block = nullptr;
  std::free(shared);
}

void joinWarp(void *mine, void (*operation)(void *const *)) {
  size_t thread = block->current;
  Warp &warp = block->warps[thread / 32];
  if (warp.arrived == 0)
    warp.operation = operation;
  if (warp.operation != operation)
    fail("lanes of a warp join different operations");
  warp.slots[thread % 32] = mine;
  if (++warp.arrived < 32)
    return waitFor(warp);
  operation(warp.slots);
  warp.arrived = 0;
  ++warp.generation;
}

void checkAligned(const void *p, size_t alignment) {
  if (reinterpret_cast<uintptr_t>(p) % alignment != 0)
    fail("a misaligned address");
}

void copyAsync(void *to, const void *from, bool valid) {
  checkAligned(to, 16);
  checkAligned(from, 16);
  std::memset(to, 0xff, 16);
  block->fibers[block->current].open.push_back({to, valid ? from : nullptr});
}

void commitCopies() {
  Fiber &self = block->fibers[block->current];
  self.groups.push_back(std::move(self.open));
  self.open.clear();
}

void waitCopies(size_t groups) {
  Fiber &self = block->fibers[block->current];
  for (; self.groups.size() > groups; self.groups.pop_front())
    for (const Copy &copy : self.groups.front()) {
      if (copy.from)
        std::memcpy(copy.to, copy.from, 16);
      else
        std::memset(copy.to, 0, 16);
    }
}

void loadMatrices(uint32_t (&out)[4], const void *row, bool transposed) {
  checkAligned(row, 16);
  Matrices mine{&out, static_cast<const uint16_t *>(row)};
  if (transposed)
    joinWarp<Matrices, loadAll<true>>(mine);
  else
    joinWarp<Matrices, loadAll<false>>(mine);
}

void multiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (*decode)(uint16_t)) {
  Product mine{&c, &a, {b0, b1}, decode};
  joinWarp<Product, multiplyAll>(mine);
}

} // namespace emulation

void multiplyAddTf32(float (&c)[4], const float (&a)[4], float b0, float b1) {
  emulation::Tf32Product mine{&c, &a, {b0, b1}};
  emulation::joinWarp<emulation::Tf32Product, emulation::multiplyAllTf32>(mine);
}

void __syncthreads() {
  emulation::Block &all = *emulation::block;
  if (++all.barrier.arrived < all.fibers.size())
    return emulation::waitFor(all.barrier);
  all.barrier.arrived = 0;
  ++all.barrier.generation;
}

void __syncwarp() { emulation::joinWarp(nullptr, emulation::nothing); }

std::byte *sharedMemory() { return emulation::block->shared; }

float bitsToFloat(uint32_t bits) { return std::bit_cast<float>(bits); }
uint32_t floatToBits(float x) { return std::bit_cast<uint32_t>(x); }
float toFloat(Half x) { return cpu::toFloat(cpu::Half{x.bits}); }
float toFloat(BFloat x) { return cpu::toFloat(cpu::BFloat{x.bits}); }
void fromFloat(float x, Half &out) {
  cpu::Half half;
  cpu::fromFloat(x, half);
  out.bits = half.bits;
}
void fromFloat(float x, BFloat &out) {
  cpu::BFloat half;
  cpu::fromFloat(x, half);
  out.bits = half.bits;
}

uint32_t subtractHalves(uint32_t a, uint32_t b) {
  uint32_t differences = 0;
  for (int shift : {0, 16}) {
    Half difference;
    fromFloat(toFloat(Half{uint16_t(a >> shift)}) - toFloat(Half{uint16_t(b >> shift)}), difference);
    differences |= uint32_t(difference.bits) << shift;
  }
  return differences;
}

float shuffleXor(float x, int mask) { return shuffle(x, int(emulation::laneOf()) ^ mask); }
uint64_t shuffleXor(uint64_t x, int mask) {
  int lane = int(emulation::laneOf()) ^ mask;
  uint32_t low = shuffle(uint32_t(x), lane);
  return uint64_t(shuffle(uint32_t(x >> 32), lane)) << 32 | low;
}
uint32_t shuffle(uint32_t x, int lane) {
  emulation::Shuffle mine{x, 0, lane};
  emulation::joinWarp<emulation::Shuffle, emulation::shuffleAll>(mine);
  return mine.result;
}
bool anyLane(bool predicate) {
  emulation::joinWarp<bool, emulation::anyOf>(predicate);
  return predicate;
}

} // namespace helix::cuda
