//===- HardwareTest.cpp - Hardware descriptions ----------------------------===//
#include "lib/Perf/Hardware.h"

#include <cstdio>
#include <fstream>
#include <gtest/gtest.h>

using namespace helix;
using namespace helix::perf;

namespace {

Hardware load(const std::string &name) {
  Hardware hardware;
  Error error;
  EXPECT_TRUE(loadHardware(name, hardware, error)) << error.message;
  return hardware;
}

const char *kGood = R"({"name": "mine", "source": "a test",
  "device": {"memory_bytes_per_s": 1e12, "capacity_bytes": 1e11, "peak_flops_per_s": {"bf16": 1e14}},
  "system": {"domain": 4, "links": [{"name": "a", "bytes_per_s": 1e11, "latency_s": {"all_to_all": 1e-6}},
                                    {"name": "b", "bytes_per_s": 1e10, "latency_s": 2e-5}]},
  "model": {"memory_efficiency": {"linear": 0.5}, "op_latency_s": 2e-6, "latency_model": "divisible"}})";

/// The error of the good description with `from` replaced by `to`.
Error refuse(const std::string &from, const std::string &to) {
  std::string text = kGood;
  size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos);
  text.replace(at, from.size(), to);
  Hardware hardware;
  Error error;
  EXPECT_FALSE(parseHardware(text, "mine.json", hardware, error)) << text;
  return error;
}

} // namespace

TEST(Hardware, BuiltinSystemsHaveThePublishedNumbers) {
  // shared constants of the reference: HBM bytes/s, bf16 TFLOP/s, NVLink bytes/s, NVLink domain.
  struct Expected {
    const char *name;
    double memory, half, link;
    uint32_t domain;
  };
  for (const Expected &expected :
       {Expected{"h100-hgx", 3.35e12, 989e12, 450e9, 8}, Expected{"h200-hgx", 4.8e12, 989e12, 450e9, 8},
        Expected{"b200-hgx", 7.7e12, 2250e12, 900e9, 8}, Expected{"gb200-nvl72", 8e12, 2500e12, 900e9, 72},
        Expected{"gb300-nvl72", 8e12, 2500e12, 900e9, 72}}) {
    Hardware hardware = load(expected.name);
    EXPECT_EQ(hardware.name, expected.name);
    EXPECT_DOUBLE_EQ(hardware.memoryBytesPerSecond, expected.memory);
    EXPECT_DOUBLE_EQ(peakFlops(hardware, DType::Half), expected.half);
    EXPECT_DOUBLE_EQ(hardware.inside.bytesPerSecond, expected.link);
    EXPECT_EQ(hardware.domain, expected.domain);
    EXPECT_DOUBLE_EQ(hardware.memoryEfficiency[0], 0.8);
    EXPECT_DOUBLE_EQ(hardware.opLatency[3], 3e-6);
    EXPECT_EQ(hardware.collectiveLatency, LatencyModel::PerCommand);
  }
  EXPECT_DOUBLE_EQ(load("gb300-nvl72").outside.bytesPerSecond, 1e11);
  EXPECT_EQ(builtinHardware().back(), "cpu");
  EXPECT_GT(load("cpu").sharedMemoryBytesPerSecond, 0);
}

TEST(Hardware, ReadsWhatItPrints) {
  for (const std::string &name : builtinHardware()) {
    Hardware hardware = load(name), again;
    Error error;
    std::string text = printHardware(hardware);
    ASSERT_TRUE(parseHardware(text, "printed", again, error)) << error.message;
    EXPECT_EQ(printHardware(again), text);
  }
}

TEST(Hardware, FieldsGoWhereTheyBelong) {
  Hardware hardware;
  Error error;
  ASSERT_TRUE(parseHardware(kGood, "mine.json", hardware, error)) << error.message;
  EXPECT_EQ(hardware.memoryEfficiency, (PerClass{1, 0.5, 1, 1}));
  EXPECT_EQ(hardware.opLatency, (PerClass{2e-6, 2e-6, 2e-6, 2e-6}));
  EXPECT_DOUBLE_EQ(hardware.inside.latency[0], 1e-6);
  EXPECT_DOUBLE_EQ(hardware.inside.latency[1], 0);
  EXPECT_DOUBLE_EQ(hardware.outside.latency[1], 2e-5);
  EXPECT_EQ(hardware.collectiveLatency, LatencyModel::Divisible);
  EXPECT_EQ(hardware.opLatencyModel, LatencyModel::PerCommand);
}

TEST(Hardware, RefusesWithFileAndField) {
  struct Case {
    const char *from, *to, *says;
  };
  for (const Case &bad :
       {Case{"\"memory_bytes_per_s\": 1e12, ", "", "device.memory_bytes_per_s is missing"},
        Case{"1e12", "-1", "device.memory_bytes_per_s must be a number from 1 on"},
        Case{"1e12", "\"fast\"", "device.memory_bytes_per_s must be a number"},
        Case{"\"bf16\"", "\"bf17\"", "device.peak_flops_per_s.bf17 is no field"},
        Case{"\"domain\": 4", "\"domain\": 1.5", "system.domain must be a whole number"},
        Case{"\"links\"", "\"link\"", "system.links must be an array"},
        Case{"1e10", "0", "system.links[1].bytes_per_s must be"},
        Case{"\"all_to_all\"", "\"alltoall\"", "system.links[0].latency_s.alltoall is no field"},
        Case{"\"linear\": 0.5", "\"linear\": 1.5", "model.memory_efficiency.linear must be"},
        Case{"\"divisible\"", "\"none\"", "model.latency_model must be \"divisible\" or \"per-collective\""},
        Case{"\"name\": \"mine\"", "\"name\": 3", "name must be a text"},
        Case{"\"model\"", "\"modell\"", "modell is no field"}}) {
    Error error = refuse(bad.from, bad.to);
    EXPECT_EQ(error.code, ErrorCode::HardwareInvalid);
    EXPECT_NE(error.message.find(std::string("'mine.json': ") + bad.says), std::string::npos) << error.message;
  }
  EXPECT_EQ(refuse("{\"name\"", "[{\"name\"").code, ErrorCode::HardwareUnreadable);
}

TEST(Hardware, TellsNamesFromFiles) {
  Hardware hardware;
  Error error;
  EXPECT_FALSE(loadHardware("gb200", hardware, error));
  EXPECT_EQ(error.code, ErrorCode::HardwareUnknown);
  EXPECT_NE(error.message.find("gb200-nvl72"), std::string::npos);
  EXPECT_FALSE(loadHardware("/nowhere/mine.json", hardware, error));
  EXPECT_EQ(error.code, ErrorCode::HardwareUnreadable);
  std::string path = testing::TempDir() + "hardware.json";
  std::ofstream(path) << kGood;
  EXPECT_TRUE(loadHardware(path, hardware, error)) << error.message;
  EXPECT_EQ(hardware.name, "mine");
  std::remove(path.c_str());
}

TEST(Hardware, PeakOfTheNextDtype) {
  Hardware hopper = load("h100-hgx");
  EXPECT_DOUBLE_EQ(peakFlops(hopper, DType::Fp4), 1978e12); // no fp4 units: as fp8
  EXPECT_DOUBLE_EQ(peakFlops(hopper, DType::F32), 989e12);  // nothing wider: as bf16
}

TEST(Hardware, RanksOfADomainShareItsMemory) {
  Hardware hardware = load("cpu");
  hardware.memoryBytesPerSecond = 10;
  EXPECT_DOUBLE_EQ(memoryBandwidth(load("gb200-nvl72"), 64), 8e12);
  hardware.sharedMemoryBytesPerSecond = 15;
  hardware.domain = 3;
  EXPECT_DOUBLE_EQ(memoryBandwidth(hardware, 1), 10);
  EXPECT_DOUBLE_EQ(memoryBandwidth(hardware, 2), 7.5);
  EXPECT_DOUBLE_EQ(memoryBandwidth(hardware, 6), 5); // two machines of three
}
