//===- Output.cpp - Files that helix-simulate writes -----------------------===//
#include "Simulate.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace helix {

bool writeOutput(const std::string &path, const std::string &text, const std::vector<std::string> &inputs,
                 Error &error) {
  for (const std::string &input : inputs) {
    std::error_code ignored;
    if (std::filesystem::equivalent(path, input, ignored))
      return error.set(ErrorCode::SimulateArgumentInvalid,
                       "'" + path + "' is an input of this run; write to another file");
  }
  errno = 0;
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file.fail())
    return error.set(ErrorCode::SimulationUnwritable,
                     "cannot write '" + path + "': " + (errno ? std::strerror(errno) : "the device takes no more"));
  return true;
}

std::string_view kindOf(const perf::Command &command) {
  if (const auto *work = std::get_if<perf::Work>(&command.work))
    return perf::className(work->kind);
  if (const auto *exchange = std::get_if<perf::Exchange>(&command.work))
    return perf::collectiveName(exchange->kind);
  return std::holds_alternative<perf::Wait>(command.work) ? "wait" : "record";
}

} // namespace helix
