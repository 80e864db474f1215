//===- JsonProblem.h - Where a text is no JSON -----------------------------===//
#ifndef HELIX_LIB_PERF_JSONPROBLEM_H
#define HELIX_LIB_PERF_JSONPROBLEM_H

#include <string>
#include <string_view>

namespace helix::perf {

/// What is wrong with a text that is no JSON, and in which line and column: "is no JSON: line 3, …".
std::string jsonProblem(std::string_view text);

} // namespace helix::perf

#endif // HELIX_LIB_PERF_JSONPROBLEM_H
