//===- Order.h - Which commands are done when another starts ---------------===//
#ifndef HELIX_PASSES_ORDER_H
#define HELIX_PASSES_ORDER_H

#include "dialects/Plan/Plan.h"

namespace helix {

/// What the streams and events of an entry say about the order of its commands on one rank. A command is known to be
/// done before another starts if it stands before it on its stream, or before a record that the other's stream waits
/// for. Nothing else is known: not that what was issued first starts first.
class Order {
public:
  /// A command without a stream counts as one of stream 0, a wait for an event that was not recorded before as nothing.
  explicit Order(plan::EntryOp entry);

  unsigned streams() const { return streamCount; }
  /// Commands in the order of issue.
  llvm::ArrayRef<plan::CommandOpInterface> commands() const { return issued; }
  unsigned stream(mlir::Operation *command) const { return points.lookup(command).stream; }
  /// Place of a command on its stream, from 0.
  int64_t position(mlir::Operation *command) const { return points.lookup(command).position; }
  /// Per stream, how many of its commands are known to be done when `command` starts.
  llvm::ArrayRef<int64_t> doneBefore(mlir::Operation *command) const {
    return llvm::ArrayRef(clocks).slice(points.lookup(command).clock, streamCount);
  }
  /// Whether `first` is known to be done when `second` starts.
  bool before(mlir::Operation *first, mlir::Operation *second) const {
    return doneBefore(second)[stream(first)] > position(first);
  }

private:
  struct Point {
    unsigned stream = 0;
    int64_t position = 0;
    size_t clock = 0; ///< index of the command's counts in `clocks`
  };
  unsigned streamCount = 1;
  llvm::SmallVector<plan::CommandOpInterface> issued;
  llvm::DenseMap<mlir::Operation *, Point> points;
  std::vector<int64_t> clocks;
};

/// The stream of a command, 0 if it has none yet.
inline unsigned streamOf(plan::CommandOpInterface command) {
  mlir::IntegerAttr stream = command.getStreamAttr();
  return stream ? stream.getInt() : 0;
}

} // namespace helix

#endif // HELIX_PASSES_ORDER_H
