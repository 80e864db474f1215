//===- TraceFile.h - Measured steps from traces of helix-run ---------------===//
#ifndef HELIX_LIB_PERF_TRACEFILE_H
#define HELIX_LIB_PERF_TRACEFILE_H

#include "lib/Perf/Calibrate.h"

namespace helix::perf {

/// Reads what `helix-run --trace` wrote, and the artifact that it names (as it is named, else beside the trace), whose
/// commands' bytes and FLOPs the durations are held against. False and TraceInvalid, or the artifact's error.
bool readTrace(const std::string &path, MeasuredRun &run, Error &error);

} // namespace helix::perf

#endif // HELIX_LIB_PERF_TRACEFILE_H
