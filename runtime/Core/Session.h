//===- Session.h - Decoding with an artifact -------------------------------===//
#ifndef HELIX_RUNTIME_CORE_SESSION_H
#define HELIX_RUNTIME_CORE_SESSION_H

#include "runtime/Core/Device.h"
#include "runtime/Core/Sampler.h"
#include "runtime/Error.h"

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace helix {

/// Tokens of a slot that a step appends.
struct Feed {
  uint32_t slot = 0;
  std::span<const int64_t> ids;
};

/// All ranks of an artifact, on its device. Functions throw Error; after CommTimeout, CommAborted or
/// another failure within a step every later step throws SessionFailed. Not for several threads at once.
class Session {
public:
  /// Reads and verifies the artifact, loads its kernels and works out what it needs. Allocates nothing large.
  explicit Session(const std::string &path, const SessionOptions &options = {});
  ~Session();

  const artifact::Artifact &artifact() const { return *file; }
  uint32_t ranks() const { return mesh.ranks(); }
  uint32_t slots() const { return uint32_t(sequences.size()); }
  uint64_t capacity() const { return file->kv()->capacity(); } ///< tokens of a slot
  uint64_t vocabulary() const { return file->vocabulary(); }

  /// The entry of a kind, or null.
  const artifact::Entry *entry(artifact::EntryKind kind) const;

  /// Bytes that a rank will hold, and of what all ranks share.
  MemoryNeeds memory(uint32_t rank) const { return ranksDevice->memory(rank); }
  uint64_t sharedMemory() const { return ranksDevice->sharedMemory(); }
  Device &device() { return *ranksDevice; }
  const Device &device() const { return *ranksDevice; }
  const SessionOptions &options() const { return settings; }

  /// Allocates memory and loads weights. Throws MemoryExhausted, before it allocates, if not enough is available.
  /// `progress` is called with bytes loaded and their total.
  void load(const std::function<void(uint64_t, uint64_t)> &progress = {});

  /// Takes a free slot for a new sequence. `sequence` keys its noise, so that a result does not depend on the slot.
  uint32_t admit(uint64_t sequence);
  bool hasFreeSlot() const;
  /// Forgets the tokens from `length` on.
  void truncate(uint32_t slot, uint64_t length);
  void release(uint32_t slot);
  uint64_t length(uint32_t slot) const { return admitted(slot).length; }

  /// Appends 1 … entry tokens to each of the slots; the others are idle.
  void step(artifact::EntryKind kind, std::span<const Feed> feeds);

  /// Appends any number of tokens by steps of the prefill entry, or of the decode entry if there is none.
  void prefill(std::span<const Feed> feeds);

  /// Copies to `out` [vocabulary] the logits after the slot's last token.
  void logits(uint32_t slot, std::span<float> out) const;

  /// The same after token `token` of those that the last step appended. Throws EntryMissing if the step's entry
  /// computes those of the last token only.
  void logitsOf(uint32_t slot, uint32_t token, std::span<float> out) const;

  /// Chooses the token that follows the slot's last; appends nothing.
  int64_t sample(uint32_t slot, const Sampling &sampling);

  /// What a rank sent in the last step, and for samples since.
  Traffic takeTraffic();

  /// Steps since the session was loaded.
  uint64_t steps() const { return stepCount; }

  /// Seconds of the last step, around the work of all ranks.
  double stepSeconds() const { return lastSeconds; }

  /// The remembered steps of an entry, oldest first.
  std::vector<const StepTrace *> trace(uint32_t entry) const;

  /// Fills the first `tokens` tokens of every slot's cache with small numbers and says that the slot holds them: to
  /// time steps at a length, not to decode anything.
  void pretendLength(uint32_t slot, uint64_t tokens);

private:
  struct Sequence {
    bool used = false;
    bool hasLogits = false;
    uint64_t key = 0;
    uint64_t length = 0;
  };
  const Sequence &admitted(uint32_t slot) const;
  Sequence &admitted(uint32_t slot) { return const_cast<Sequence &>(std::as_const(*this).admitted(slot)); }
  uint32_t entryIndex(artifact::EntryKind kind) const;
  void checkFeeds(const artifact::Entry &entry, std::span<const Feed> feeds) const;
  void checkRoom(const Feed &feed) const;
  void checkLoaded() const;
  void reserveTrace();
  void gatherLogits(std::span<float> out, const std::function<const float *(uint32_t)> &local) const;
  std::optional<int64_t> firstToken(uint32_t slot);
  std::optional<int64_t> listedToken(uint32_t slot, const Sampling &sampling);
  template <typename Body> void onDevice(const Body &body);

  artifact::LoadedArtifact file;
  SessionOptions settings;
  Mesh mesh;
  std::unique_ptr<Device> ranksDevice;
  std::vector<Traffic> sent; ///< per rank, of the last step

  std::vector<Sequence> sequences;
  Sampler sampler;
  std::vector<LocalLogits> locals;
  std::vector<cpu::Candidate> firsts; ///< of ranks
  std::vector<Shortlist> shortlists;
  std::vector<Feed> rest; ///< what prefill has still to append
  /// Of one entry: room for the last steps, in a ring.
  struct Ring {
    std::vector<StepTrace> steps;
    uint64_t taken = 0;
  };
  std::vector<Ring> rings;
  uint64_t stepCount = 0;
  double lastSeconds = 0;
  uint32_t lastEntry = 0;
  std::vector<uint32_t> lastCounts; ///< tokens per slot of the last step
  bool failed = false;
};

} // namespace helix

#endif // HELIX_RUNTIME_CORE_SESSION_H
