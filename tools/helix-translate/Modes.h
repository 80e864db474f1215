//===- Modes.h - What helix-translate can do -------------------------------===//
#ifndef HELIX_TOOLS_HELIX_TRANSLATE_MODES_H
#define HELIX_TOOLS_HELIX_TRANSLATE_MODES_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/LogicalResult.h"
#include "llvm/Support/raw_ostream.h"

namespace helix::translate {

/// The category of every option of the tool; those of LLVM's libraries stay hidden.
inline llvm::cl::OptionCategory optionCategory("Options of helix-translate");

// Each mode reads the file, or directory, `input` and writes its result to `output`, which is kept only on success and
// then becomes `outputPath`. Each reports what goes wrong itself and has its options in its own file.
llvm::LogicalResult importOnnxMode(llvm::StringRef input, llvm::StringRef outputPath, llvm::raw_ostream &output);
llvm::LogicalResult importHuggingFaceMode(llvm::StringRef input, llvm::StringRef outputPath, llvm::raw_ostream &output);
llvm::LogicalResult planToHlxMode(llvm::StringRef input, llvm::StringRef outputPath, llvm::raw_ostream &output);
llvm::LogicalResult hlxToTextMode(llvm::StringRef input, llvm::StringRef outputPath, llvm::raw_ostream &output);

} // namespace helix::translate

#endif // HELIX_TOOLS_HELIX_TRANSLATE_MODES_H
