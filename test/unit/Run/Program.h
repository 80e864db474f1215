//===- Program.h - Running a program in a test -----------------------------===//
#ifndef HELIX_TEST_UNIT_RUN_PROGRAM_H
#define HELIX_TEST_UNIT_RUN_PROGRAM_H

#include "test/unit/Core/TinyModel.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

namespace helix::test {

struct Result {
  int status;
  std::string out, err;
};

inline std::string contentsOf(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Runs a program with an empty stdin.
inline Result run(const TemporaryDirectory &directory, const std::string &program, const std::string &arguments) {
  std::string out = directory.file("out"), err = directory.file("err");
  int status = std::system((program + " " + arguments + " >" + out + " 2>" + err + " </dev/null").c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, contentsOf(out), contentsOf(err)};
}

} // namespace helix::test

#endif // HELIX_TEST_UNIT_RUN_PROGRAM_H
