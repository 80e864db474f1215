//===- VnniTargets.h - Instruction sets for products of integers -----------===//
//
// Included before all else: of the x86 sets also AVX-512 with VNNI and VBMI, which nothing but products of integers runs
// faster with. Otherwise as in CMakeLists.txt.
//
//===-----------------------------------------------------------------------===//
#define HWY_WANT_AVX3_DL
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
