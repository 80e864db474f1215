//===- Dependences.h - Which commands need which ---------------------------===//
#ifndef HELIX_PASSES_DEPENDENCES_H
#define HELIX_PASSES_DEPENDENCES_H

#include "dialects/Plan/Plan.h"

namespace helix {

/// The dependences among an entry's commands, by index in program order: a command needs those that make its operands,
/// and an append also those that read or append to the version of the cache that it writes over. All lead forward.
class Dependences {
public:
  explicit Dependences(plan::EntryOp entry);

  size_t size() const { return commands.size(); }
  plan::CommandOpInterface command(size_t i) const { return commands[i]; }
  /// The commands that must be done before i starts, ascending, each once.
  llvm::ArrayRef<size_t> before(size_t i) const { return needs[i]; }
  /// The commands that need i, ascending.
  llvm::ArrayRef<size_t> behind(size_t i) const { return needed[i]; }

private:
  llvm::SmallVector<plan::CommandOpInterface> commands;
  std::vector<llvm::SmallVector<size_t, 4>> needs, needed;
};

} // namespace helix

#endif // HELIX_PASSES_DEPENDENCES_H
