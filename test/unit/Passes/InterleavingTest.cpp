//===- InterleavingTest.cpp - Plans under every timing of their streams ------===//
//
// Runs a plan on memory that remembers, word by word, which value was written there, with ranks and streams taking
// steps in random order: whatever streams and events allow can happen. It knows nothing of lifetimes and vector clocks,
// so it checks helix-schedule, helix-place and helix-verify-plan from outside.
//
//===-----------------------------------------------------------------------===//
#include "test/unit/Interpreter/RandomProgram.h"

#include "passes/Passes.h"

#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/MapVector.h"
#include "gtest/gtest.h"

#include <deque>

using namespace mlir;
using namespace helix;
using namespace helix::test;

namespace {

/// Words of 4 bytes of one arena; a value's number, negative while it is being written, 0 for nothing yet.
using Words = std::vector<int64_t>;

struct Rank {
  Words arenas[2];
  DenseMap<Value, int64_t> caches; ///< an entry's cache argument → the version that it holds
  std::vector<std::deque<plan::CommandOpInterface>> streams;
  std::vector<unsigned> stage; ///< of the command at the head of each stream
  DenseSet<uint64_t> events;
  DenseMap<Operation *, unsigned> reached; ///< collective → its stage on this rank
};

class Machine {
public:
  Machine(plan::EntryOp entry, MeshAttr mesh, uint64_t seed) : mesh(mesh), random(seed) {
    size_t streams = 1;
    Block &body = entry.getBody().front();
    for (BlockArgument argument : body.getArguments())
      number(argument, argument);
    for (auto command : body.getOps<plan::CommandOpInterface>()) {
      streams = std::max<size_t>(streams, command.getStreamAttr().getInt() + 1);
      for (Value result : command->getResults()) {
        Value root = result;
        if (auto append = dyn_cast<plan::KVAppendOp>(*command))
          root = roots.lookup(append.getCache());
        number(result, root);
      }
    }
    ranks.resize(mesh.ranks());
    for (Rank &rank : ranks) {
      rank.arenas[0].resize(*entry.getDeviceBytes() / 4);
      rank.arenas[1].resize(*entry.getCommBytes() / 4);
      rank.streams.resize(streams);
      rank.stage.resize(streams);
      for (BlockArgument argument : body.getArguments())
        rank.caches[argument] = numbers[argument];
      for (auto command : body.getOps<plan::CommandOpInterface>())
        rank.streams[command.getStreamAttr().getInt()].push_back(command);
    }
  }

  /// Runs to the end; a description of what went wrong, or nothing.
  std::string run() {
    while (true) {
      SmallVector<std::pair<unsigned, unsigned>> left;
      for (unsigned r = 0; r < ranks.size(); ++r)
        for (unsigned s = 0; s < ranks[r].streams.size(); ++s)
          if (!ranks[r].streams[s].empty())
            left.push_back({r, s});
      if (left.empty())
        return {};
      std::shuffle(left.begin(), left.end(), random);
      if (llvm::none_of(left, [&](auto at) { return step(at.first, at.second) || !wrong.empty(); }))
        return "nothing can go on";
      if (!wrong.empty())
        return wrong;
    }
  }

private:
  void number(Value value, Value root) {
    numbers[value] = numbers.size() + 1;
    roots[value] = root;
  }

  void fail(Operation *op, const Twine &what) {
    if (!wrong.empty())
      return;
    llvm::raw_string_ostream(wrong) << what << ": " << *op;
  }

  Words::iterator bytes(Rank &rank, Value value, size_t &words) {
    auto result = cast<OpResult>(value);
    auto place = cast<plan::PlaceAttr>(
        cast<plan::CommandOpInterface>(result.getOwner()).getPlacesAttr()[result.getResultNumber()]);
    words = plan::bytesOf(value.getType()) / 4;
    return rank.arenas[place.getArena() == plan::Arena::Comm].begin() + place.getOffset() / 4;
  }

  /// Whether the value is there, whole.
  void check(Rank &rank, Value value, Operation *op, bool writing = false) {
    if (isa<KVType>(value.getType())) {
      if (rank.caches[roots[value]] != (writing ? -1 : 1) * numbers[value])
        fail(op, "uses a cache that is not as its operand says");
      return;
    }
    if (!value.getDefiningOp<plan::CommandOpInterface>())
      return;
    size_t words;
    auto at = bytes(rank, value, words);
    for (size_t i = 0; i < words; ++i)
      if (at[i] != (writing ? -1 : 1) * numbers[value])
        return fail(op, writing ? "its result is written over" : "an operand is not there or written over");
  }

  void write(Rank &rank, Value value, bool done) {
    if (isa<KVType>(value.getType())) {
      rank.caches[roots[value]] = done ? numbers[value] : -numbers[value];
      return;
    }
    size_t words;
    auto at = bytes(rank, value, words);
    std::fill_n(at, words, done ? numbers[value] : -numbers[value]);
  }

  SmallVector<unsigned> peers(unsigned rank, Axis axis) {
    SmallVector<unsigned> result;
    Axis other = axis == Axis::Kvp   ? Axis::Tpa
                 : axis == Axis::Tpa ? Axis::Kvp
                 : axis == Axis::Tpf ? Axis::Ep
                                     : Axis::Tpf;
    for (unsigned peer = 0; peer < ranks.size(); ++peer)
      if (axis == Axis::N || mesh.coordinate(other, peer) == mesh.coordinate(other, rank))
        result.push_back(peer);
    return result;
  }

  /// One step of the command at the head of a stream; false if it has to wait.
  bool step(unsigned r, unsigned s) {
    Rank &rank = ranks[r];
    plan::CommandOpInterface command = rank.streams[s].front();
    unsigned &stage = rank.stage[s];
    auto pop = [&] {
      rank.streams[s].pop_front();
      stage = 0;
      return true;
    };
    if (auto record = dyn_cast<plan::RecordOp>(*command)) {
      rank.events.insert(record.getEvent());
      return pop();
    }
    if (auto wait = dyn_cast<plan::WaitOp>(*command))
      return rank.events.contains(wait.getEvent()) && pop();
    if (std::optional<Axis> axis = command.getExchangeAxis())
      return exchange(r, command, *axis, stage) && (stage != kDone || pop());
    // At work from its first step to its second; meanwhile anything else may happen.
    bool appends = isa<plan::KVAppendOp>(*command);
    for (Value operand : command->getOperands())
      if (!(appends && stage == 1 && isa<KVType>(operand.getType())))
        check(rank, operand, command);
    for (Value result : command->getResults()) {
      if (stage == 1)
        check(rank, result, command, /*writing=*/true);
      write(rank, result, stage == 1);
    }
    return stage++ == 0 || pop();
  }

  /// All-to-all: enter, then, once all have, read what the peers send. All-reduce: enter, sum the own share of what the
  /// peers have, then read their shares. None waits for its peers to be done with it.
  bool exchange(unsigned r, plan::CommandOpInterface command, Axis axis, unsigned &stage) {
    Rank &rank = ranks[r];
    Value sent = command->getOperand(0), received = command->getResult(0);
    SmallVector<unsigned> group = peers(r, axis);
    if (stage != 0 && llvm::any_of(group, [&](unsigned peer) { return ranks[peer].reached.lookup(command) < stage; }))
      return false;
    if (stage == 0) {
      check(rank, sent, command);
      write(rank, received, false);
    } else {
      check(rank, received, command, /*writing=*/stage == 1);
      for (unsigned peer : group)
        check(ranks[peer], stage == 1 ? sent : received, command);
      write(rank, received, true);
    }
    bool twoRounds = isa<plan::AllReduceOp>(*command);
    rank.reached[command] = ++stage;
    if (stage == (twoRounds ? 3u : 2u))
      stage = kDone;
    return true;
  }

  static constexpr unsigned kDone = 99;
  MeshAttr mesh;
  std::mt19937_64 random;
  DenseMap<Value, int64_t> numbers;
  DenseMap<Value, Value> roots; ///< of a cache's versions, the entry's argument
  std::vector<Rank> ranks;
  std::string wrong;
};

OwningOpRef<ModuleOp> compile(ModuleOp model, int64_t kvp, int64_t tpa, int64_t hopb, int64_t split) {
  OwningOpRef<ModuleOp> plan(model.clone());
  PipelineOptions options;
  options.shard.kvp = kvp;
  options.shard.tpa = tpa;
  options.hopb.chunks = hopb;
  options.splitReduce.chunks = split;
  options.schedule.commStream = true;
  PassManager manager(model.getContext());
  buildHelixPipeline(manager, options);
  if (failed(manager.run(*plan)))
    return {};
  return plan;
}

TEST(Interleavings, OfRandomPlansKeepEveryValue) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    std::mt19937_64 random(seed);
    ProgramShape shape = randomShape(random);
    auto pick = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
    int64_t kvp = pick(1, 4), tpa = pick(1, std::min<int64_t>(shape.kvHeads, 8 / kvp));
    int64_t hopb = pick(0, 4), split = pick(0, 3);
    SCOPED_TRACE(describe(shape) + " seed " + std::to_string(seed) + " kvp " + std::to_string(kvp) + " tpa " +
                 std::to_string(tpa) + " hopb " + std::to_string(hopb) + " split " + std::to_string(split));
    TemporaryDirectory directory;
    auto context = makeContext();
    OwningOpRef<ModuleOp> model = makeProgram(*context, shape, random, directory.path());
    ASSERT_TRUE(model);
    OwningOpRef<ModuleOp> plan = compile(*model, kvp, tpa, hopb, split);
    ASSERT_TRUE(plan);
    auto mesh = (*plan)->getAttrOfType<MeshAttr>(kMeshAttr);
    for (auto entry : plan->getOps<plan::EntryOp>())
      for (uint64_t run = 0; run < 10; ++run)
        ASSERT_EQ(Machine(entry, mesh, run).run(), "") << entry.getSymName().str();
  }
}

/// What the machine is for: it sees a plan whose events do not hold its streams together.
TEST(Interleavings, ShowAMissingWait) {
  std::mt19937_64 random(1);
  ProgramShape shape;
  shape.kvHeads = 2;
  shape.batch = 4;
  TemporaryDirectory directory;
  auto context = makeContext();
  OwningOpRef<ModuleOp> model = makeProgram(*context, shape, random, directory.path());
  ASSERT_TRUE(model);
  OwningOpRef<ModuleOp> plan = compile(*model, 2, 2, 2, 2);
  ASSERT_TRUE(plan);
  auto mesh = (*plan)->getAttrOfType<MeshAttr>(kMeshAttr);
  plan::EntryOp entry = *plan->getOps<plan::EntryOp>().begin();
  size_t waits = llvm::range_size(entry.getBody().front().getOps<plan::WaitOp>());
  ASSERT_GT(waits, 5u);
  for (size_t missing = 0; missing < waits; ++missing) {
    OwningOpRef<ModuleOp> broken(plan->clone());
    plan::EntryOp changed = *broken->getOps<plan::EntryOp>().begin();
    (*std::next(changed.getBody().front().getOps<plan::WaitOp>().begin(), missing)).erase();
    bool seen = false;
    for (uint64_t run = 0; run < 200 && !seen; ++run)
      seen = !Machine(changed, mesh, run).run().empty();
    EXPECT_TRUE(seen) << "wait " << missing << " does nothing";
  }
}

} // namespace
