//===- Steps.cpp - Steps of an artifact, timed on demand -------------------===//
#include "bench/cpu/Steps.h"
#include "bench/cpu/Bandwidth.h"
#include "runtime/Core/Memory.h"
#include "runtime/Core/Session.h"
#include "runtime/Core/Workers.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

namespace helix::bench {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// A line "Name: N kB" of this process's status, in bytes.
uint64_t statusBytes(const std::string &name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(name + ":"))
      return std::stoull(line.substr(name.size() + 1)) * 1024;
  return 0;
}

/// Bytes per second of copying the artifact's weight files, once they are in the page cache, to fresh memory.
double copyFiles(const Session &session, const std::string &directory, Workers &workers) {
  double best = 0;
  for (int round = 0; round < 2; ++round) {
    uint64_t bytes = 0;
    double seconds = 0;
    for (const artifact::WeightFile *it : *session.artifact().files()) {
      Mapping file = Mapping::file((std::filesystem::path(directory) / it->path()->str()).string(), it->bytes());
      Clock::time_point start = Clock::now();
      Mapping copy = Mapping::zeros(file.size());
      workers.parallel(file.size() / 4096, [&](size_t begin, size_t end, unsigned) {
        std::memcpy(copy.data() + begin * 4096, file.data() + begin * 4096, (end - begin) * 4096);
      });
      seconds += since(start);
      bytes += file.size();
    }
    best = std::max(best, double(bytes) / seconds);
  }
  return best;
}

} // namespace

void serveSteps(const StepsOptions &options) {
  Workers workers(options.threads);
  SessionOptions sessionOptions;
  sessionOptions.threads = options.threads;
  Session session(options.artifact, sessionOptions);
  std::string directory = std::filesystem::path(options.artifact).parent_path().string();
  uint64_t stored = 0;
  for (const artifact::WeightFile *it : *session.artifact().files())
    stored += it->bytes();
  double copied = copyFiles(session, directory, workers);
  std::ofstream("/proc/self/clear_refs") << "5";
  Clock::time_point start = Clock::now();
  session.load();
  double loaded = double(stored) / since(start);
  uint64_t peak = statusBytes("VmHWM");

  std::vector<Feed> feeds;
  int64_t id = 7;
  for (uint32_t i = 0; i < session.slots(); ++i) {
    feeds.push_back({session.admit(i), {&id, 1}});
    session.pretendLength(feeds.back().slot, options.context);
  }
  uint64_t weights = 0, kv = 0;
  for (uint32_t rank = 0; rank < session.ranks(); ++rank) {
    weights += session.memory(rank).weights;
    kv += session.memory(rank).kv;
  }
  std::printf("{\"copy_bytes_per_second\": %.4g, \"load_bytes_per_second\": %.4g, \"load_peak_bytes\": %llu, "
              "\"weight_bytes\": %llu, \"kv_bytes\": %llu, \"slots\": %u}\n",
              copied, loaded, (unsigned long long)peak, (unsigned long long)weights, (unsigned long long)kv,
              session.slots());
  std::fflush(stdout);

  Mapping memory = Mapping::zeros(uint64_t(1) << 30);
  std::memset(memory.data(), 1, memory.size());
  volatile float sink = 0;
  std::vector<int64_t> prompt;
  for (std::string line, word; std::getline(std::cin, line);) {
    std::istringstream words(line);
    words >> word;
    double answer = 0;
    if (word == "read") {
      start = Clock::now();
      workers.parallel(memory.size() / 64, [&](size_t begin, size_t end, unsigned) {
        sink = sink + readLines(memory.data() + begin * 64, end - begin);
      });
      answer = double(memory.size()) / since(start);
    } else if (word == "step") {
      for (const Feed &feed : feeds)
        session.truncate(feed.slot, options.context);
      session.step(artifact::EntryKind::Decode, feeds);
      answer = session.stepSeconds();
    } else if (word == "prefill") {
      size_t tokens = 0;
      words >> tokens;
      prompt.resize(tokens);
      for (size_t i = 0; i < tokens; ++i)
        prompt[i] = int64_t(i * 7919 % session.vocabulary());
      session.truncate(feeds[0].slot, 0);
      start = Clock::now();
      Feed feed{feeds[0].slot, prompt};
      session.prefill({&feed, 1});
      answer = since(start);
      session.pretendLength(feeds[0].slot, options.context);
    } else if (word == "rss") {
      answer = double(statusBytes("RssAnon"));
    }
    std::printf("%.9g\n", answer);
    std::fflush(stdout);
  }
}

} // namespace helix::bench
