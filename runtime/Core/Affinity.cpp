//===- Affinity.cpp - Which CPU a thread runs on ---------------------------===//
#include "runtime/Core/Affinity.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

namespace helix {
namespace {

/// "0-3,8" as 0, 1, 2, 3, 8; empty if it is no such list.
Cpus parseList(std::string_view text) {
  Cpus cpus;
  while (!text.empty()) {
    unsigned first = 0, last = 0;
    auto number = [&](unsigned &to) {
      auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
      text.remove_prefix(size_t(end - text.data()));
      return error == std::errc() && to < CPU_SETSIZE;
    };
    if (!number(first))
      return {};
    last = first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      if (!number(last))
        return {};
    }
    for (unsigned cpu = first; cpu <= last; ++cpu)
      cpus.push_back(cpu);
    if (text.starts_with(','))
      text.remove_prefix(1);
    else if (!text.empty())
      return {};
  }
  return cpus;
}

} // namespace

std::vector<Cpus> nodesOfThread(const std::string &directory) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
    return {};
  std::map<unsigned, Cpus> nodes; // by number
  std::error_code none;
  for (const auto &entry : std::filesystem::directory_iterator(directory, none)) {
    std::string name = entry.path().filename().string();
    unsigned number = 0;
    if (!name.starts_with("node") ||
        std::from_chars(name.data() + 4, name.data() + name.size(), number).ptr != name.data() + name.size())
      continue;
    std::ifstream file(entry.path() / "cpulist");
    std::string list;
    std::getline(file, list);
    for (unsigned cpu : parseList(list))
      if (CPU_ISSET(cpu, &allowed)) {
        nodes[number].push_back(cpu);
        CPU_CLR(cpu, &allowed);
      }
  }
  std::vector<Cpus> result;
  for (auto &[number, cpus] : nodes)
    result.push_back(std::move(cpus));
  // What no node has.
  Cpus rest;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &allowed))
      rest.push_back(cpu);
  if (!rest.empty())
    result.push_back(std::move(rest));
  return result;
}

unsigned cpusOfThread() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
    return std::max(1u, std::thread::hardware_concurrency());
  return unsigned(CPU_COUNT(&allowed));
}

std::optional<std::vector<Cpus>> placeThreads(std::vector<Cpus> nodes, std::span<const unsigned> threads) {
  std::vector<Cpus> result;
  for (unsigned count : threads) {
    Cpus own;
    auto take = [&](Cpus &node) {
      size_t taken = std::min<size_t>(count - own.size(), node.size());
      own.insert(own.end(), node.begin(), node.begin() + ptrdiff_t(taken));
      node.erase(node.begin(), node.begin() + ptrdiff_t(taken));
    };
    auto whole = std::find_if(nodes.begin(), nodes.end(), [&](const Cpus &node) { return node.size() >= count; });
    if (whole != nodes.end())
      take(*whole);
    for (Cpus &node : nodes)
      take(node);
    if (own.size() != count)
      return std::nullopt;
    result.push_back(std::move(own));
  }
  return result;
}

OnCpu::OnCpu(std::optional<unsigned> cpu) {
  cpu_set_t all, one;
  if (!cpu || sched_getaffinity(0, sizeof(all), &all) != 0)
    return;
  CPU_ZERO(&one);
  CPU_SET(*cpu, &one);
  if (sched_setaffinity(0, sizeof(one), &one) == 0)
    before = all;
}

OnCpu::~OnCpu() {
  if (before)
    sched_setaffinity(0, sizeof(*before), &*before);
}

} // namespace helix
