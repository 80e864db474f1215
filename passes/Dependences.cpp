//===- Dependences.cpp - Which commands need which -------------------------===//
#include "passes/Dependences.h"

using namespace mlir;

namespace helix {

Dependences::Dependences(plan::EntryOp entry) {
  DenseMap<Operation *, size_t> index;
  for (auto command : entry.getBody().front().getOps<plan::CommandOpInterface>()) {
    index[command] = commands.size();
    commands.push_back(command);
  }
  needs.resize(commands.size());
  needed.resize(commands.size());
  for (auto [i, command] : llvm::enumerate(commands)) {
    for (Value operand : command->getOperands()) {
      if (Operation *producer = operand.getDefiningOp(); producer && index.contains(producer))
        needs[i].push_back(index[producer]);
      if (isa<plan::KVAppendOp>(*command) && isa<KVType>(operand.getType()))
        for (Operation *user : operand.getUsers())
          if (user != command.getOperation() && index.contains(user))
            needs[i].push_back(index[user]);
    }
    llvm::sort(needs[i]);
    needs[i].erase(llvm::unique(needs[i]), needs[i].end());
    for (size_t before : needs[i])
      needed[before].push_back(i);
  }
}

} // namespace helix
