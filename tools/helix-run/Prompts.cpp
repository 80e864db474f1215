//===- Prompts.cpp - Where prompts come from -------------------------------===//
#include "Npz.h"
#include "Run.h"
#include "runtime/Error.h"

#include <fstream>
#include <nlohmann/json.hpp>

namespace helix {
namespace {

std::vector<int64_t> parseLine(const std::string &line, const std::string &where) {
  auto fail = [&]() -> Error { return {ErrorCode::PromptsInvalid, where + " is not {\"ids\": [numbers]}"}; };
  auto value = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object() || !value.contains("ids") || !value["ids"].is_array())
    throw fail();
  std::vector<int64_t> ids;
  for (const auto &id : value["ids"]) {
    if (!id.is_number_integer())
      throw fail();
    // An unsigned number past i64 must not wrap into the vocabulary.
    bool large = id.is_number_unsigned() && id.get<uint64_t>() > uint64_t(INT64_MAX);
    ids.push_back(large ? INT64_MAX : id.get<int64_t>());
  }
  return ids;
}

Prompts readLines(const std::string &path) {
  std::ifstream file(path);
  if (!file)
    throw Error(ErrorCode::PromptsInvalid, "cannot open '" + path + "'");
  Prompts prompts;
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number)
    if (line.find_first_not_of(" \t\r") != std::string::npos)
      prompts.push_back(parseLine(line, "'" + path + "', line " + std::to_string(number) + ","));
  if (file.bad())
    throw Error(ErrorCode::PromptsInvalid, "cannot read '" + path + "'");
  return prompts;
}

} // namespace

Prompts readPrompts(const RunOptions &options) {
  Prompts prompts;
  if (!options.promptsFile.empty())
    prompts = readLines(options.promptsFile);
  else if (!options.inputsFile.empty())
    prompts = readNpzIntegers(options.inputsFile, "ids_");
  else
    prompts = {options.promptIds};
  if (prompts.empty())
    throw Error(ErrorCode::PromptsInvalid, "there is no prompt in '" + options.promptsFile + "'");
  for (size_t i = 0; i < prompts.size(); ++i)
    if (prompts[i].empty())
      throw Error(ErrorCode::PromptsInvalid, "prompt " + std::to_string(i) + " has no token; give it at least one");
  return prompts;
}

} // namespace helix
