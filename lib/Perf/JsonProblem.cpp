//===- JsonProblem.cpp - Where a text is no JSON ---------------------------===//
#include "lib/Perf/JsonProblem.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace helix::perf {
namespace {

using Json = nlohmann::json;

/// Takes all events and keeps the place of the error.
struct Locator : nlohmann::json_sax<Json> {
  size_t position = 0;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t &) override { return true; }
  bool string(string_t &) override { return true; }
  bool binary(binary_t &) override { return true; }
  bool start_object(size_t) override { return true; }
  bool key(string_t &) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t at, const std::string &, const Json::exception &) override {
    position = at;
    return false;
  }
};

} // namespace

std::string jsonProblem(std::string_view text) {
  Locator locator;
  Json::sax_parse(text, &locator);
  std::string_view before = text.substr(0, std::min(text.size(), std::max<size_t>(locator.position, 1) - 1));
  size_t line = 1 + size_t(std::count(before.begin(), before.end(), '\n'));
  size_t column = before.size() - (before.rfind('\n') + 1) + 1;
  bool ends = locator.position > text.size() || text.empty();
  return "is no JSON: line " + std::to_string(line) + ", column " + std::to_string(column) +
         (ends ? " is its end, and something is missing"
               : " cannot stand there; JSON has no comments, no NaN and no infinity");
}

} // namespace helix::perf
