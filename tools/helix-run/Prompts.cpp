//===- Prompts.cpp - Where prompts come from -------------------------------===//
#include "Npz.h"
#include "Run.h"
#include "runtime/Error.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

namespace helix {
namespace {

/// What was typed, short enough for a message.
std::string inQuotes(const std::string &text) {
  constexpr size_t limit = 60;
  return "'" + (text.size() <= limit ? text : text.substr(0, limit) + "...") + "'";
}

std::string shown(const nlohmann::json &value) {
  // Of a list or object the type: its text may be long, and nested deeply.
  return value.is_number() || value.is_string() ? inQuotes(value.dump()) : value.type_name();
}

std::vector<int64_t> parseLine(const std::string &line, const std::string &where) {
  auto value = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object() || !value.contains("ids") || !value["ids"].is_array())
    throw Error(ErrorCode::PromptsInvalid, where + ", is not {\"ids\": [numbers]}");
  std::vector<int64_t> ids;
  for (const auto &id : value["ids"]) {
    // An unsigned number past i64 must not wrap into the vocabulary.
    bool large = id.is_number_unsigned() && id.get<uint64_t>() > uint64_t(INT64_MAX);
    if (!id.is_number_integer() || large)
      throw Error(ErrorCode::PromptsInvalid, where + ", is not {\"ids\": [numbers]}: id " + std::to_string(ids.size()) +
                                                 " is " + shown(id) + ", not a whole number of 64 bits");
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

Prompts readLines(const std::string &path) {
  std::ifstream file;
  bool standardInput = path == "-";
  if (!standardInput)
    file.open(path);
  if (!standardInput && !file)
    throw Error(ErrorCode::PromptsInvalid, "cannot open '" + path + "'");
  std::istream &stream = standardInput ? std::cin : file;
  std::string name = standardInput ? "stdin" : "'" + path + "'";
  Prompts prompts;
  std::string line;
  for (size_t number = 1; std::getline(stream, line); ++number)
    if (line.find_first_not_of(" \t\r") != std::string::npos) {
      std::string where = name + ", line " + std::to_string(number);
      prompts.push_back({parseLine(line, where), where});
    }
  if (stream.bad())
    throw Error(ErrorCode::PromptsInvalid, "cannot read " + name);
  if (prompts.empty())
    throw Error(ErrorCode::PromptsInvalid, "there is no prompt in " + name);
  return prompts;
}

Prompts readArrays(const std::string &path) {
  Prompts prompts;
  for (auto &ids : readNpzIntegers(path, "ids_")) {
    std::string source = "'" + path + "', array 'ids_" + std::to_string(prompts.size()) + "'";
    prompts.push_back({std::move(ids), std::move(source)});
  }
  return prompts;
}

void checkId(const Session &session, int64_t id, const std::string &where) {
  if (id < 0 || uint64_t(id) >= session.vocabulary())
    throw Error(ErrorCode::TokenInvalid, where + ": token id " + std::to_string(id) + " is not in the vocabulary of " +
                                             std::to_string(session.vocabulary()) + "; ids are 0 to " +
                                             std::to_string(session.vocabulary() - 1));
}

} // namespace

std::vector<int64_t> parseIds(const std::string &option, const std::string &text) {
  std::vector<int64_t> ids;
  for (size_t from = 0; from <= text.size();) {
    size_t to = std::min(text.find(',', from), text.size());
    std::string piece = text.substr(from, to - from);
    auto fail = [&](const std::string &reason) {
      return Error(ErrorCode::RunArgumentInvalid,
                   option + " " + inQuotes(text) + ": " + reason + "; write ids as 1,2,3");
    };
    int64_t id = 0;
    auto [end, code] = std::from_chars(piece.data(), piece.data() + piece.size(), id);
    if (piece.empty())
      throw fail("place " + std::to_string(ids.size()) + " is empty");
    if (code == std::errc::invalid_argument || end != piece.data() + piece.size())
      throw fail(inQuotes(piece) + " is not a whole number");
    if (code != std::errc())
      throw fail(inQuotes(piece) + " does not fit 64 bits");
    ids.push_back(id);
    from = to + 1;
  }
  return ids;
}

Prompts readPrompts(const RunOptions &options) {
  Prompts prompts;
  if (!options.promptsFile.empty())
    prompts = readLines(options.promptsFile);
  else if (!options.inputsFile.empty())
    prompts = readArrays(options.inputsFile);
  else
    prompts = {{parseIds("--prompt-ids", options.promptIds), "--prompt-ids"}};
  for (size_t i = 0; i < prompts.size(); ++i)
    if (prompts[i].ids.empty())
      throw Error(ErrorCode::PromptsInvalid, promptName(prompts, i) + " has no token; give it at least one");
  return prompts;
}

std::string promptName(const Prompts &prompts, size_t index) {
  return "prompt " + std::to_string(index) + " (" + prompts[index].source + ")";
}

void checkPrompts(const Session &session, const Prompts &prompts, const RunOptions &options) {
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::vector<int64_t> &ids = prompts[i].ids;
    if (ids.size() > session.capacity())
      throw Error(ErrorCode::ContextFull, promptName(prompts, i) + " has " + std::to_string(ids.size()) +
                                              " tokens, the context of a slot is " +
                                              std::to_string(session.capacity()) +
                                              "; shorten it, or compile the model with a larger --max-context");
    std::string name = promptName(prompts, i);
    for (int64_t id : ids)
      checkId(session, id, name);
  }
  for (int64_t id : options.stopIds)
    checkId(session, id, "--stop-ids");
}

} // namespace helix
