//===- Session.cpp - Decoding with an artifact -----------------------------===//
#include "runtime/Core/Session.h"
#include "lib/Artifact/Validate.h"
#include "runtime/Error.h"

#include <algorithm>
#include <filesystem>

namespace helix {
namespace {

artifact::LoadedArtifact openDecoder(const std::string &path) {
  artifact::LoadedArtifact file = openArtifact(path);
  if (artifact::isStateless(*file))
    throw Error(ErrorCode::EntryMissing, "the artifact is a stateless function, which has nothing to decode with; run "
                                         "it with --inputs and --outputs");
  return file;
}

SessionOptions withChecksum(SessionOptions options, const artifact::LoadedArtifact &file) {
  if (options.processes)
    options.processes->artifact = file.checksum();
  return options;
}

std::string slotName(uint32_t slot) { return "slot " + std::to_string(slot); }

} // namespace

Session::Session(const std::string &path, const SessionOptions &options)
    : file(openDecoder(path)), settings(withChecksum(options, file)), mesh(meshOf(*file)),
      ranksDevice(makeDevice(*file, settings)) {
  if (settings.weightsRoot.empty())
    settings.weightsRoot = std::filesystem::path(path).parent_path().string();
  uint32_t slots = file->kv()->slots();
  for (const artifact::Entry *it : *file->entries())
    slots = std::min(slots, it->batch());
  sequences.resize(slots);
  lastCounts.resize(slots);
}

Session::~Session() = default;

uint32_t Session::entryIndex(artifact::EntryKind kind) const {
  for (uint32_t i = 0; i < file->entries()->size(); ++i)
    if (file->entries()->Get(i)->kind() == kind)
      return i;
  throw Error(ErrorCode::EntryMissing,
              std::string("the artifact has no ") + (kind == artifact::EntryKind::Decode
                                                         ? "decode entry; compile the model again"
                                                         : "prefill entry; compile the model with --prefill-chunk"));
}

const artifact::Entry *Session::entry(artifact::EntryKind kind) const {
  for (const artifact::Entry *it : *file->entries())
    if (it->kind() == kind)
      return it;
  return nullptr;
}

/// Has the device do something; if that fails, the session has.
template <typename Body> void Session::onDevice(const Body &body) {
  if (failed)
    throw Error(ErrorCode::SessionFailed, "a step of this session failed; open a new one");
  failed = true;
  body();
  failed = false;
}

void Session::load(const std::function<void(uint64_t, uint64_t)> &progress) {
  if (!locals.empty())
    throw Error(ErrorCode::ArgumentInvalid, "the session is loaded already");
  std::vector<Mapping> files;
  if (file->files())
    for (const artifact::WeightFile *it : *file->files())
      files.push_back(
          Mapping::file((std::filesystem::path(settings.weightsRoot) / it->path()->str()).string(), it->bytes()));
  ranksDevice->load(files, progress);
  sent.resize(ranks());
  reserveTrace();
  locals.resize(ranks());
}

void Session::reserveTrace() {
  rings.resize(settings.traceSteps == 0 ? 0 : file->entries()->size());
  for (uint32_t i = 0; i < rings.size(); ++i) {
    StepTrace step;
    step.past.resize(ranksDevice->inputs(i).past.size());
    step.qLen.resize(ranksDevice->inputs(i).qLen.size());
    step.ranks.assign(ranks(), ranksDevice->timesOf(i));
    rings[i].steps.assign(settings.traceSteps, step);
  }
}

std::vector<const StepTrace *> Session::trace(uint32_t entry) const {
  std::vector<const StepTrace *> steps;
  if (entry < rings.size()) {
    const Ring &ring = rings[entry];
    for (uint64_t i = ring.taken - std::min<uint64_t>(ring.taken, ring.steps.size()); i < ring.taken; ++i)
      steps.push_back(&ring.steps[i % ring.steps.size()]);
  }
  return steps;
}

void Session::checkLoaded() const {
  // The last thing that loading makes.
  if (locals.empty())
    throw Error(ErrorCode::ArgumentInvalid, "the session is not loaded");
}

const Session::Sequence &Session::admitted(uint32_t slot) const {
  if (slot >= slots() || !sequences[slot].used)
    throw Error(ErrorCode::SlotInvalid, slotName(slot) + " holds no sequence; the artifact has " +
                                            counted(slots(), "slot") + ", and `admit` gives one");
  return sequences[slot];
}

bool Session::hasFreeSlot() const {
  return std::any_of(sequences.begin(), sequences.end(), [](const Sequence &it) { return !it.used; });
}

uint32_t Session::admit(uint64_t sequence) {
  for (uint32_t slot = 0; slot < slots(); ++slot)
    if (!sequences[slot].used) {
      sequences[slot] = {true, false, sequence, 0};
      return slot;
    }
  throw Error(ErrorCode::SlotInvalid, "no slot of " + std::to_string(slots()) + " is free; release one first");
}

void Session::truncate(uint32_t slot, uint64_t length) {
  Sequence &sequence = admitted(slot);
  if (length > sequence.length)
    throw Error(ErrorCode::SlotInvalid, slotName(slot) + " has " + std::to_string(sequence.length) +
                                            " tokens, it cannot be truncated to " + std::to_string(length));
  sequence.hasLogits = sequence.hasLogits && length == sequence.length;
  sequence.length = length;
}

void Session::release(uint32_t slot) { admitted(slot) = Sequence(); }

void Session::pretendLength(uint32_t slot, uint64_t tokens) {
  checkLoaded();
  Sequence &sequence = admitted(slot);
  if (tokens > capacity())
    throw Error(ErrorCode::ContextFull, slotName(slot) + " holds at most " + std::to_string(capacity()) +
                                            " tokens, not " + std::to_string(tokens) +
                                            "; compile the model with a larger --max-context");
  onDevice([&] { ranksDevice->fill(slot, tokens); });
  sequence.length = tokens;
  sequence.hasLogits = false;
}

void Session::checkRoom(const Feed &feed) const {
  const Sequence &sequence = admitted(feed.slot);
  if (feed.ids.size() > capacity() - sequence.length)
    throw Error(ErrorCode::ContextFull, slotName(feed.slot) + " has " + std::to_string(sequence.length) + " tokens, " +
                                            std::to_string(feed.ids.size()) + " more exceed its capacity of " +
                                            std::to_string(capacity()) +
                                            "; compile the model with a larger --max-context");
  for (int64_t id : feed.ids)
    if (id < 0 || uint64_t(id) >= vocabulary())
      throw Error(ErrorCode::TokenInvalid,
                  "token id " + std::to_string(id) + " is not in the vocabulary of " + std::to_string(vocabulary()));
}

void Session::checkFeeds(const artifact::Entry &entry, std::span<const Feed> feeds) const {
  for (size_t i = 0; i < feeds.size(); ++i) {
    checkRoom(feeds[i]);
    if (feeds[i].ids.empty() || feeds[i].ids.size() > entry.tokens())
      throw Error(ErrorCode::ArgumentInvalid, "a step of this entry takes 1 to " + std::to_string(entry.tokens()) +
                                                  " tokens of a slot, not " + std::to_string(feeds[i].ids.size()));
    for (size_t j = 0; j < i; ++j)
      if (feeds[j].slot == feeds[i].slot)
        throw Error(ErrorCode::SlotInvalid, slotName(feeds[i].slot) + " is given twice in a step");
  }
}

void Session::step(artifact::EntryKind kind, std::span<const Feed> feeds) {
  checkLoaded();
  uint32_t index = entryIndex(kind);
  const artifact::Entry &entry = *file->entries()->Get(index);
  checkFeeds(entry, feeds);
  StepInputs &input = ranksDevice->inputs(index);
  std::fill(input.past.begin(), input.past.end(), 0);
  std::fill(input.qLen.begin(), input.qLen.end(), 0);
  std::fill(lastCounts.begin(), lastCounts.end(), 0);
  for (const Feed &feed : feeds) {
    std::copy(feed.ids.begin(), feed.ids.end(), input.ids.begin() + size_t(feed.slot) * entry.tokens());
    input.past[feed.slot] = int32_t(sequences[feed.slot].length);
    input.qLen[feed.slot] = int32_t(feed.ids.size());
  }
  StepTrace *times = nullptr;
  if (!rings.empty()) {
    times = &rings[index].steps[rings[index].taken++ % rings[index].steps.size()];
    times->number = stepCount;
    std::copy(input.past.begin(), input.past.end(), times->past.begin());
    std::copy(input.qLen.begin(), input.qLen.end(), times->qLen.begin());
  }
  int64_t begin = traceNow();
  onDevice([&] { ranksDevice->run(index, sent, times); });
  int64_t end = traceNow();
  if (times)
    times->begin = begin, times->end = end;
  lastSeconds = double(end - begin) * 1e-9;
  ++stepCount;
  lastEntry = index;
  for (const Feed &feed : feeds) {
    sequences[feed.slot].length += feed.ids.size();
    sequences[feed.slot].hasLogits = true;
    lastCounts[feed.slot] = uint32_t(feed.ids.size());
  }
}

void Session::prefill(std::span<const Feed> feeds) {
  artifact::EntryKind kind =
      entry(artifact::EntryKind::Prefill) ? artifact::EntryKind::Prefill : artifact::EntryKind::Decode;
  size_t chunk = file->entries()->Get(entryIndex(kind))->tokens();
  // All or nothing: what does not fit is found before the first step.
  for (const Feed &feed : feeds)
    checkRoom(feed);
  rest.assign(feeds.begin(), feeds.end());
  std::vector<Feed> now;
  for (;;) {
    now.clear();
    for (Feed &feed : rest) {
      size_t count = std::min(chunk, feed.ids.size());
      if (count != 0)
        now.push_back({feed.slot, feed.ids.first(count)});
      feed.ids = feed.ids.subspan(count);
    }
    if (now.empty())
      return;
    step(kind, now);
  }
}

void Session::gatherLogits(std::span<float> out, const std::function<const float *(uint32_t)> &local) const {
  if (out.size() != vocabulary())
    throw Error(ErrorCode::ArgumentInvalid,
                "a row of logits has " + std::to_string(vocabulary()) + " elements, not " + std::to_string(out.size()));
  size_t share = file->local_vocabulary();
  for (size_t r = 0, from = 0; from < out.size(); ++r, from += share)
    std::copy_n(local(uint32_t(r)), std::min(share, out.size() - from), out.data() + from);
}

void Session::logits(uint32_t slot, std::span<float> out) const {
  if (!admitted(slot).hasLogits)
    throw Error(ErrorCode::SlotInvalid, slotName(slot) + " has no logits: nothing was appended since it was admitted "
                                                         "or truncated");
  gatherLogits(out, [&](uint32_t rank) { return ranksDevice->lastLogits(rank, slot); });
}

void Session::logitsOf(uint32_t slot, uint32_t token, std::span<float> out) const {
  if (slot >= slots() || token >= lastCounts[slot])
    throw Error(ErrorCode::ArgumentInvalid,
                "the last step appended no token " + std::to_string(token) + " to " + slotName(slot));
  const artifact::Entry &entry = *file->entries()->Get(lastEntry);
  bool all = entry.logits() == artifact::LogitRows::All;
  if (!all && token + 1 != lastCounts[slot])
    throw Error(ErrorCode::EntryMissing, "the entry gives the logits of the last token only, those of token " +
                                             std::to_string(token) +
                                             " of its chunk were not computed; compile the model with --all-logits");
  size_t row = all ? size_t(slot) * entry.tokens() + token : slot;
  gatherLogits(out,
               [&](uint32_t rank) { return ranksDevice->logits(rank, lastEntry) + row * file->local_vocabulary(); });
}

/// The likeliest token, if the ranks have found theirs: their logits need not come to the host.
std::optional<int64_t> Session::firstToken(uint32_t slot) {
  firsts.clear();
  for (uint32_t r = 0; r < ranks() && r * uint64_t(file->local_vocabulary()) < vocabulary(); ++r) {
    std::optional<cpu::Candidate> first = ranksDevice->firstToken(r, slot);
    if (!first)
      return {};
    firsts.push_back(*first);
  }
  return sampler.chooseFirst(firsts, ranks());
}

/// A token from what the ranks list of their logits, if they do and it tells: these need not come to the host.
std::optional<int64_t> Session::listedToken(uint32_t slot, const Sampling &sampling) {
  uint64_t share = file->local_vocabulary();
  shortlists.assign(std::min<uint64_t>(ranks(), (vocabulary() + share - 1) / share), {});
  for (size_t r = 0; r < shortlists.size(); ++r)
    shortlists[r].count = std::min(share, vocabulary() - r * share);
  auto list = [&](const cpu::Draw &draw) {
    bool lists = ranksDevice->list(slot, draw, shortlists);
    return std::span<const Shortlist>(shortlists).first(lists ? shortlists.size() : 0);
  };
  const Sequence &sequence = admitted(slot);
  return sampler.chooseListed(list, ranks(), sampling, sequence.key, uint32_t(sequence.length));
}

int64_t Session::sample(uint32_t slot, const Sampling &sampling) {
  checkSampling(sampling);
  const Sequence &sequence = admitted(slot);
  if (!sequence.hasLogits)
    throw Error(ErrorCode::SlotInvalid, slotName(slot) + " has no logits to sample from");
  if (std::optional<int64_t> token = sampling.temperature == 0 ? firstToken(slot) : listedToken(slot, sampling))
    return *token;
  size_t share = file->local_vocabulary();
  for (uint32_t r = 0; r < ranks(); ++r) {
    size_t first = std::min<size_t>(r * share, vocabulary());
    locals[r] = {ranksDevice->lastLogits(r, slot), std::min<size_t>(share, vocabulary() - first), int64_t(first)};
  }
  return sampler.choose(locals, sampling, sequence.key, uint32_t(sequence.length));
}

Traffic Session::takeTraffic() {
  Traffic traffic = sent.empty() ? Traffic() : sent.front();
  std::fill(sent.begin(), sent.end(), Traffic());
  traffic.sampling = sampler.takeBytesSent();
  return traffic;
}

} // namespace helix
