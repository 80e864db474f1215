//===- Error.h - The runtime's exception -----------------------------------===//
#ifndef HELIX_RUNTIME_ERROR_H
#define HELIX_RUNTIME_ERROR_H

#include "helix/Errors.h"

#include <exception>
#include <string>

namespace helix {

/// A numbered error; `what` starts with the number.
class Error : public std::exception {
public:
  Error(ErrorCode code, const std::string &text) : number(code), message(errorPrefix(code) + text) {}
  /// For a message that has its number already.
  static Error fromMessage(ErrorCode code, std::string message) {
    Error error(code, "");
    error.message = std::move(message);
    return error;
  }

  ErrorCode code() const { return number; }
  const char *what() const noexcept override { return message.c_str(); }

private:
  ErrorCode number;
  std::string message;
};

} // namespace helix

#endif // HELIX_RUNTIME_ERROR_H
