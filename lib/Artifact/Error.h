//===- Error.h - What went wrong with an artifact --------------------------===//
#ifndef HELIX_LIB_ARTIFACT_ERROR_H
#define HELIX_LIB_ARTIFACT_ERROR_H

#include "helix/Errors.h"

#include <string>
#include <string_view>

namespace helix::artifact {

/// Out-parameter of functions that return false, so that code without exceptions can call them.
struct Error {
  ErrorCode code = ErrorCode::ArtifactMalformed;
  std::string message; ///< with the number in front

  /// Fills in the error and returns false.
  bool set(ErrorCode number, std::string_view text) {
    code = number;
    message = errorPrefix(number);
    message += text;
    return false;
  }
};

} // namespace helix::artifact

#endif // HELIX_LIB_ARTIFACT_ERROR_H
