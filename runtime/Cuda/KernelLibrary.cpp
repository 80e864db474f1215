//===- KernelLibrary.cpp - Kernels that are loaded on a GPU ----------------===//
#include "runtime/Cuda/KernelLibrary.h"
#include "helix-c/kernel.h"
#include "runtime/Error.h"

#include <algorithm>

namespace helix::cuda {
namespace {

/// Dynamic shared memory that every kernel has without asking.
constexpr uint32_t kPlainShared = 48 << 10;

HeldModule load(std::span<const std::byte> code, const std::string &what) {
  // PTX is text and ends with a zero; of a fat binary the loader reads no more than it says.
  std::vector<std::byte> copy(code.begin(), code.end());
  copy.push_back(std::byte(0));
  HeldModule module;
  try {
    HELIX_CU(cuModuleLoadData, module.out(), copy.data());
  } catch (const Error &error) {
    throw Error(ErrorCode::ImageUnloadable, what + " cannot be loaded on this GPU: " + error.what());
  }
  return module;
}

Function functionOf(Module module, const char *name, const std::string &what) {
  Function function = nullptr;
  if (driver().cuModuleGetFunction(&function, module, name) != kSuccess)
    throw Error(ErrorCode::ImageUnloadable, what + " has no kernel '" + name + "'");
  return function;
}

} // namespace

void Prepared::launch(Stream stream) const {
  if (call)
    return run(*call, stream);
  void *one[1], **parameters = one;
  std::vector<void *> each;
  if (argument.empty()) {
    for (const Address &buffer : buffers)
      each.push_back(const_cast<Address *>(&buffer));
    parameters = each.data();
  } else {
    one[0] = const_cast<std::byte *>(argument.data());
  }
  HELIX_CU(cuLaunchKernel, function, grid[0], grid[1], grid[2], block[0], block[1], block[2], sharedBytes, stream,
           parameters, nullptr);
}

KernelLibrary::KernelLibrary(const artifact::Artifact *artifact, const Gpu &gpu, bool roundsActivations)
    : artifact(artifact), roundsActivations(roundsActivations) {
  deviceShape = {uint32_t(gpu.attribute(kMultiprocessors)), uint32_t(gpu.attribute(kSharedPerBlockOptin)),
                 uint32_t(gpu.attribute(kSharedPerMultiprocessor))};
  if (kernelImages().empty())
    throw Error(ErrorCode::KernelsMissing, "this helix was built without the CUDA toolkit and has no kernels for GPUs; "
                                           "build it where nvcc is found (-DHELIX_CUDA=ON says why it is not)");
  for (const KernelImage &image : kernelImages())
    library.push_back(load(image.code, std::string("the library's image '") + image.name + "'"));
  if (!artifact)
    return;
  for (uint32_t i = 0; artifact->images() && i < artifact->images()->size(); ++i) {
    const auto &code = *artifact->images()->Get(i)->code();
    images.push_back(
        load(std::as_bytes(std::span(code.data(), code.size())), "image " + std::to_string(i) + " of the artifact"));
  }
  if (artifact->kernels())
    for (const artifact::Kernel *kernel : *artifact->kernels())
      kernels.push_back(functionOf(images[kernel->image()].get(), kernel->symbol()->c_str(),
                                   "image " + std::to_string(kernel->image()) + " of the artifact"));
}

Function KernelLibrary::find(const Launch &launch) {
  auto [it, isNew] = functions.try_emplace(launch.kernel, Known{nullptr, kPlainShared});
  Known &known = it->second;
  if (isNew)
    known.function = functionOf(library[uint32_t(launch.image)].get(), launch.kernel, "the library's image");
  if (launch.sharedBytes > deviceShape.sharedBytesPerBlock)
    throw Error(ErrorCode::CudaShapeUnsupported,
                std::string(launch.kernel) + " needs " + std::to_string(launch.sharedBytes) +
                    " bytes of shared memory for this model's shapes, a block of this GPU has " +
                    std::to_string(deviceShape.sharedBytesPerBlock) + "; compile with a smaller batch or chunk");
  if (launch.sharedBytes > known.allowedShared) {
    HELIX_CU(cuFuncSetAttribute, known.function, kMaxDynamicShared, int(launch.sharedBytes));
    known.allowedShared = launch.sharedBytes;
  }
  return known.function;
}

std::vector<Prepared> KernelLibrary::prepare(std::vector<Launch> all) {
  std::vector<Prepared> prepared;
  for (Launch &launch : all)
    prepared.push_back({find(launch), launch.grid, launch.block, launch.sharedBytes, std::move(launch.argument)});
  return prepared;
}

const Blas *KernelLibrary::blasFor(const LinearArgs &args) {
  if (!isForBlas(args, roundsActivations))
    return nullptr;
  if (productNote.empty())
    try {
      blas = std::make_unique<Blas>();
      productNote = "cuBLASLt " + std::to_string(blas->version());
    } catch (const Error &error) {
      if (error.code() != ErrorCode::CudaUnavailable)
        throw;
      productNote = std::string("by the kernels for few: ") + error.what();
    }
  return blas.get();
}

size_t KernelLibrary::scratchBytes(const LinearArgs &args) {
  size_t bytes = linearScratchBytes(args);
  return blasFor(args) ? std::max(bytes, blasScratch(args, roundsActivations).bytes) : bytes;
}

std::vector<Prepared> KernelLibrary::prepare(const LinearArgs &args) {
  auto written = [&] { return prepare(launches(args, shape())); };
  const Blas *by = blasFor(args);
  if (!by)
    return written();
  const BlasScratch layout = blasScratch(args, roundsActivations);
  auto *scratch = static_cast<std::byte *>(args.scratch);
  std::vector<Prepared> all;
  auto add = [&](const void *x, size_t stride, size_t k, bool adds) {
    Prepared &prepared = all.emplace_back();
    prepared.call = by->call(args, x, stride, k, adds, scratch + layout.workspace);
    return prepared.call != nullptr;
  };
  if (args.dtype == DType::F32)
    return add(args.x, args.k, args.k, false) ? all : written();

  const uint32_t parts = blasParts(args.dtype, roundsActivations);
  const size_t stride = linearStride(args.k, args.dtype);
  float *powers = args.dtype == DType::F16 ? reinterpret_cast<float *>(scratch + layout.powers) : nullptr;
  all = prepare(SplitRowsArgs{args.x, scratch + layout.parts, args.dtype, parts, powers, args.rows, args.k});
  // The padding is zero on both sides, and of a size that cuBLASLt likes better.
  for (uint32_t part = parts; part-- != 0;)
    if (!add(scratch + layout.parts + part * args.rows * stride * sizeof(uint16_t), stride, stride, part + 1 != parts))
      return written();
  if (powers)
    for (Prepared &prepared : prepare(ScaleRowsArgs{args.y, powers, args.rows, args.n}))
      all.push_back(std::move(prepared));
  return all;
}

Prepared KernelLibrary::generated(uint32_t kernel, std::vector<Address> buffers) const {
  Prepared prepared;
  prepared.function = kernels[kernel];
  prepared.grid = {artifact->kernels()->Get(kernel)->groups(), 1, 1};
  prepared.block = {HELIX_CUDA_THREADS, 1, 1};
  prepared.buffers = std::move(buffers);
  return prepared;
}

} // namespace helix::cuda
