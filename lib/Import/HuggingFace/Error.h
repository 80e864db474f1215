//===- Error.h - What is wrong with a checkpoint ---------------------------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_ERROR_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_ERROR_H

#include "helix/Errors.h"

#include <string>
#include <string_view>

namespace helix::checkpoint {

/// Out-parameter of functions that return false, so that code without exceptions can call them.
struct Error {
  std::string message = {}; ///< with the number in front

  /// Fills in the error and returns false.
  bool set(ErrorCode number, std::string_view text) {
    message = errorPrefix(number);
    message += text;
    return false;
  }
};

/// A text of the checkpoint in quotes, fit for a terminal: escaped, and cut where it is very long.
std::string inQuotes(std::string_view text);

/// "[1, 2, 3]".
template <typename Range> std::string listText(const Range &range) {
  std::string text = "[";
  for (auto element : range)
    text += (text.size() > 1 ? ", " : "") + std::to_string(element);
  return text + "]";
}

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_ERROR_H
