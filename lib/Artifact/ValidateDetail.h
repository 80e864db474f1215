//===- ValidateDetail.h - Shared by the parts of the validator -------------===//
#ifndef HELIX_LIB_ARTIFACT_VALIDATEDETAIL_H
#define HELIX_LIB_ARTIFACT_VALIDATEDETAIL_H

#include "lib/Artifact/Validate.h"

#include <initializer_list>
#include <optional>
#include <span>
#include <string>

namespace helix::artifact::detail {

/// Elements of lists whose check reads more than the element: a small file can name the same bytes many times.
inline constexpr flatbuffers::uoffset_t kMaxList = 256;

/// Refuses the artifact: "<where>: <what>". `where` is empty for the artifact itself.
bool refuse(Error &error, const std::string &where, const std::string &what);

/// `text` in quotes, unprintable characters as '?', cut after 120 characters.
std::string quoted(const flatbuffers::String *text);

/// The product of sizes, nothing past 2^62.
inline std::optional<uint64_t> product(std::initializer_list<uint64_t> sizes) {
  uint64_t result = 1;
  for (uint64_t size : sizes)
    if (__builtin_mul_overflow(result, size, &result) || result > (uint64_t(1) << 62))
      return std::nullopt;
  return result;
}

/// Elements of a list that may be absent.
template <typename T> flatbuffers::uoffset_t count(const flatbuffers::Vector<T> *list) {
  return list ? list->size() : 0;
}

/// Whether text is there, of 1 to 4096 bytes, none of them zero.
bool isText(const flatbuffers::String *text);

/// Checks the commands of an entry, whose own fields and the rest of the artifact are checked already.
bool validateCommands(const Artifact &artifact, const Entry &entry, const std::string &where, Error &error);

/// Checks that each event has one record, and its waits come later and on other streams; that all collectives are on
/// one stream; and that there are no more streams and events than there may be.
bool validateStreams(const Entry &entry, const std::string &where, Error &error);

/// Checks that an operand lies where it says: inside its arena and aligned, or an existing weight, layer or input.
bool validatePlace(const Artifact &artifact, const Entry &entry, const Operand &operand, const std::string &where,
                   Error &error);

/// What a command may have as an operand.
enum class Kind {
  Arena,  ///< device or communication memory
  Comm,   ///< communication memory
  Table,  ///< a weight packed as a table
  Matrix, ///< a weight packed for products
  Vector, ///< a weight kept as it is
  Ids,
  Past,
  QLen,
  Cache,
  Integers, ///< an input of i64 of a stateless entry
  Truths,   ///< an input of truths of a stateless entry
};

struct Expected {
  Kind kind;
  std::optional<uint64_t> bytes; ///< nothing: the product of its sizes is out of range
};

/// One command of an entry, and where to report it.
struct Context {
  const Artifact &artifact;
  const Entry &entry;
  const Command &command;
  std::string where;
  Error &error;

  bool refuse(const std::string &what) const { return detail::refuse(error, where, what); }
  const Operand &input(unsigned i) const { return *command.inputs()->Get(i); }
  const Operand &output(unsigned i) const { return *command.outputs()->Get(i); }
  uint64_t rows() const { return uint64_t(entry.batch()) * entry.tokens(); }
};

/// Whether the operands are of these kinds and sizes, and no output lies over an input.
bool match(const Context &context, std::span<const Expected> inputs, std::span<const Expected> outputs,
           bool disjoint = true);

/// f32 of this shape, in an arena or given to a stateless entry.
Expected arena(std::initializer_list<uint64_t> sizes);

/// Checks a command of stateless entries alone.
bool validateStateless(const Context &context);

/// Checks a stateless entry's own fields, and that nothing else is in the artifact but what it may have.
bool validatePorts(const Artifact &artifact, const Entry &entry, const std::string &where, Error &error);

} // namespace helix::artifact::detail

#endif // HELIX_LIB_ARTIFACT_VALIDATEDETAIL_H
