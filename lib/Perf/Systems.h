//===- Systems.h - The hardware descriptions that come with Helix ----------===//
#ifndef HELIX_LIB_PERF_SYSTEMS_H
#define HELIX_LIB_PERF_SYSTEMS_H

#include <string_view>

namespace helix::perf {

/// systems.json: an array of hardware descriptions.
std::string_view builtinSystems();

} // namespace helix::perf

#endif // HELIX_LIB_PERF_SYSTEMS_H
