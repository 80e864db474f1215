//===- Output.cpp - Files that helix-simulate writes -----------------------===//
#include "Simulate.h"
#include "lib/Artifact/WholeFile.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
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
  std::string reason;
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored)) {
    errno = 0;
    std::ofstream file(path, std::ios::binary);
    file << text;
    file.close();
    reason = !file.fail() ? "" : errno ? std::strerror(errno) : "the device takes no more";
  } else {
    artifact::writeWholeFile(path, text.data(), text.size(), reason);
  }
  return reason.empty() || error.set(ErrorCode::SimulationUnwritable, "cannot write '" + path + "': " + reason);
}

std::string format(const char *pattern, ...) {
  va_list arguments, again;
  va_start(arguments, pattern);
  va_copy(again, arguments);
  int length = std::vsnprintf(nullptr, 0, pattern, arguments);
  va_end(arguments);
  std::string text(size_t(std::max(length, 0)) + 1, '\0'); // and the zero at the end
  std::vsnprintf(text.data(), text.size(), pattern, again);
  va_end(again);
  text.pop_back();
  return text;
}

std::string_view kindOf(const perf::Command &command) {
  if (const auto *work = std::get_if<perf::Work>(&command.work))
    return perf::className(work->kind);
  if (const auto *exchange = std::get_if<perf::Exchange>(&command.work))
    return perf::collectiveName(exchange->kind);
  return std::holds_alternative<perf::Wait>(command.work) ? "wait" : "record";
}

} // namespace helix
