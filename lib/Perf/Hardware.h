//===- Hardware.h - What a plan is priced on -------------------------------===//
#ifndef HELIX_LIB_PERF_HARDWARE_H
#define HELIX_LIB_PERF_HARDWARE_H

#include "lib/Artifact/Error.h"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace helix::perf {

using artifact::Error;

/// Number formats by what they cost: Half is f16 and bf16, Fp8 also int8. Wider first.
enum class DType : uint8_t { F32, Half, Fp8, Fp4 };
inline constexpr unsigned kDTypes = 4;

/// Bytes of an element; block scales of the small formats are not counted.
double bytesPerElement(DType dtype);

/// "f32", "bf16" or "f16", "fp8" or "int8", "fp4"; nothing for any other text.
std::optional<DType> parseDType(std::string_view text);

/// "f32", "bf16", "fp8", "fp4".
std::string_view dtypeName(DType dtype);

/// Commands that use a device alike, and so share efficiencies and a latency. Elementwise is all generated kernels;
/// Copy moves or gathers rows: embedding, cache append, merge, last token, concatenation.
enum class CommandClass : uint8_t { Attention, Linear, Elementwise, Copy };
inline constexpr unsigned kClasses = 4;
std::string_view className(CommandClass kind);
using PerClass = std::array<double, kClasses>;

enum class CollectiveKind : uint8_t { AllToAll, AllReduce };
inline constexpr unsigned kCollectives = 2;
std::string_view collectiveName(CollectiveKind kind);

/// How what carries the fraction f of a split command pays latency: f times, as if it hid with the bytes (the picture
/// of the Helix paper), or once whole, as a message or a launch does.
enum class LatencyModel : uint8_t { Divisible, PerCommand };

/// One level of the network, seen from a device: a message of V bytes takes alpha + V / beta.
struct Link {
  std::string name;
  double bytesPerSecond = 0;                     ///< beta, one direction
  std::array<double, kCollectives> latency = {}; ///< alpha, seconds, by CollectiveKind
};

/// What `helix-run --link-latency --link-bandwidth` simulates by sleeping: a collective is over no earlier than this
/// after its last rank came to it.
struct Delay {
  double latency = 0;        ///< seconds
  double bytesPerSecond = 0; ///< 0: unlimited
};

/// A device, the system of such devices, and the constants of the cost model. docs/hardware.md describes each field.
struct Hardware {
  std::string name, source;

  double memoryBytesPerSecond = 0;
  double capacityBytes = 0;
  double reservedBytes = 0;                   ///< of the capacity, neither for weights nor for KV
  std::array<double, kDTypes> peakFlops = {}; ///< FLOP/s, dense; 0: the device has no such units

  uint32_t domain = 1;                   ///< devices that `inside` joins; there are as many domains as it takes
  Link inside, outside;                  ///< within a domain, and beyond it
  double sharedMemoryBytesPerSecond = 0; ///< of all ranks of a domain together; 0: each has memory of its own

  PerClass memoryEfficiency = {1, 1, 1, 1};  ///< of memoryBytesPerSecond
  PerClass computeEfficiency = {1, 1, 1, 1}; ///< of peakFlops
  PerClass opLatency = {};                   ///< seconds per command
  double eventLatency = 0;                   ///< seconds from a record to the start of what waited for it
  double stepLatency = 0;                    ///< seconds per step around its commands
  double delayOverhead = 0;                  ///< seconds by which a delayed collective is late
  LatencyModel collectiveLatency = LatencyModel::PerCommand;
  LatencyModel opLatencyModel = LatencyModel::PerCommand;
  std::optional<Delay> delay; ///< of a run; no part of a description
};

/// FLOP/s of the peak that products of this dtype run at: its own, else the next wider one's, else the next narrower
/// one's.
double peakFlops(const Hardware &hardware, DType dtype);

/// Bytes/s of memory that each of `ranks` ranks can count on, efficiencies apart.
double memoryBandwidth(const Hardware &hardware, uint32_t ranks);

/// Names of the systems that come with Helix.
std::vector<std::string> builtinHardware();

/// The system of that name, else the description in the file of that name. False and HardwareUnknown,
/// HardwareUnreadable or HardwareInvalid.
bool loadHardware(const std::string &nameOrPath, Hardware &hardware, Error &error);

/// As loadHardware does of a file; `origin` names it in errors.
bool parseHardware(std::string_view json, const std::string &origin, Hardware &hardware, Error &error);

/// The description as JSON that parseHardware takes.
std::string printHardware(const Hardware &hardware);

} // namespace helix::perf

#endif // HELIX_LIB_PERF_HARDWARE_H
