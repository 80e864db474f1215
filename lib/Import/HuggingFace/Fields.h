//===- Fields.h - The fields of a JSON object of config.json ---------------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_FIELDS_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_FIELDS_H

#include "lib/Import/HuggingFace/Json.h"

#include <set>
#include <vector>

namespace helix::checkpoint {

/// Takes fields out of a JSON object and remembers which. The first error stays; what is taken after it means nothing.
/// A field that is null counts as absent, as transformers writes what is not set.
class Fields {
public:
  /// `path` stands before the names of its fields in errors: "rope_scaling.".
  Fields(const Json &object, std::string path, Error &error) : object(object), path(std::move(path)), error(error) {}

  bool failed() const { return !error.message.empty(); }
  /// Records an error about a field.
  void fail(ErrorCode code, const std::string &field, const std::string &what);

  bool has(const std::string &field) const;
  /// An error unless the field is there; it may be null.
  void require(const std::string &field);
  /// The field, or null; taken from now on.
  const Json *take(const std::string &field);

  /// A whole number in [least, most]. Without a default an absent one is an error.
  int64_t integer(const std::string &field, int64_t least, int64_t most, std::optional<int64_t> absent = {});
  /// A positive finite number.
  double positive(const std::string &field, std::optional<double> absent = {});
  bool boolean(const std::string &field, bool absent);
  std::string text(const std::string &field, std::optional<std::string> absent = {});
  /// A list of `count` positive finite numbers.
  std::vector<double> positives(const std::string &field, size_t count);
  /// An error unless the field is absent or has that value.
  void only(const std::string &field, const Json &value);

  /// Takes what `harmless` names; what is then left, and is not null, is an error. Returns the harmless fields found.
  std::vector<std::string> finish(const std::set<std::string_view> &harmless);

private:
  const Json &object;
  std::string path;
  Error &error;
  std::set<std::string> taken = {};
};

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_FIELDS_H
