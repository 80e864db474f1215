//===- HlxToText.h - An artifact as text -----------------------------------===//
#ifndef HELIX_LIB_TRANSLATE_HLXTOTEXT_H
#define HELIX_LIB_TRANSLATE_HLXTOTEXT_H

#include "lib/Artifact/Artifact_generated.h"

#include "llvm/Support/raw_ostream.h"

namespace helix {

/// Prints everything in a verified artifact but the bytes of its images, one line per thing.
void printArtifact(const artifact::Artifact &artifact, llvm::raw_ostream &output);

} // namespace helix

#endif // HELIX_LIB_TRANSLATE_HLXTOTEXT_H
