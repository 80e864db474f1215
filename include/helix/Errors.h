//===- Errors.h - Numbered errors ------------------------------------------===//
#ifndef HELIX_ERRORS_H
#define HELIX_ERRORS_H

#include <string>

namespace helix {

/// The number of an error; `HLX` and four digits when printed. docs/errors/ has a page for each.
enum class ErrorCode : int {
#define HELIX_ERROR(number, name, title) name = number,
#include "helix/Errors.def"
};

/// "HLX2001: " — the prefix of an error's message.
inline std::string errorPrefix(ErrorCode code) { return "HLX" + std::to_string(static_cast<int>(code)) + ": "; }

} // namespace helix

#endif // HELIX_ERRORS_H
