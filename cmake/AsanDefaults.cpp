//===- AsanDefaults.cpp - AddressSanitizer beside a library without it -----===//
//
// LLVM's allocators poison what they have not handed out, where their headers are compiled with AddressSanitizer. Debian's
// libLLVM and libMLIR are not, and hand out memory of the same allocators without saying so. The contexts that MLIR keeps
// to the end are no leaks either.
//
//===-----------------------------------------------------------------------===//

extern "C" const char *__asan_default_options() { return "allow_user_poisoning=0:detect_leaks=0"; }
