//===- Validate.cpp - What an artifact must satisfy beyond its schema ------===//
#include "lib/Artifact/Validate.h"
#include "lib/Artifact/Format.h"
#include "lib/Artifact/ValidateDetail.h"
#include "lib/Artifact/Writer.h"

#include <algorithm>
#include <limits>

namespace helix::artifact {
using namespace detail;

bool detail::refuse(Error &error, const std::string &where, const std::string &what) {
  return error.set(ErrorCode::ArtifactInconsistent, where.empty() ? what : where + ": " + what);
}

std::string detail::quoted(const flatbuffers::String *text) {
  constexpr size_t limit = 120;
  std::string result = "'";
  for (size_t i = 0; text && i < std::min<size_t>(text->size(), limit); ++i) {
    char c = text->Get(flatbuffers::uoffset_t(i));
    result += c >= ' ' && c <= '~' ? c : '?';
  }
  return result + (text && text->size() > limit ? "…'" : "'");
}

bool detail::isText(const flatbuffers::String *text) {
  return text && text->size() != 0 && text->size() <= 4096 && text->string_view().find('\0') == std::string_view::npos;
}

uint64_t axisSize(const Mesh &mesh, Axis axis) {
  switch (axis) {
  case Axis::N:
    return uint64_t(mesh.tpa()) * mesh.kvp();
  case Axis::Tpa:
    return mesh.tpa();
  case Axis::Kvp:
    return mesh.kvp();
  case Axis::Ep:
    return mesh.ep();
  case Axis::Tpf:
    return mesh.tpf();
  }
  return 0;
}

uint64_t elementBytes(DType dtype) {
  switch (dtype) {
  case DType::F16:
  case DType::BF16:
    return 2;
  case DType::F32:
  case DType::I32:
    return 4;
  case DType::I64:
    return 8;
  case DType::I8:
  case DType::F8E4M3:
  case DType::Bool:
    return 1;
  }
  return 0;
}

uint64_t heldBytes(const Weight &weight) {
  const Quantization *quantization = weight.quantization();
  if (quantization && weight.dims()->size() == 2) {
    uint64_t columns = weight.dims()->Get(1)->local(), scale = elementBytes(quantization->scale_dtype());
    uint64_t zero = quantization->zero() == ZeroPoint::Packed ? 1 : quantization->zero() == ZeroPoint::Real ? scale : 0;
    uint64_t blocks = (columns + quantization->block() - 1) / quantization->block();
    return weight.dims()->Get(0)->local() * ((columns * quantization->bits() + 7) / 8 + blocks * (scale + zero));
  }
  uint64_t bytes = elementBytes(weight.dtype());
  for (const WeightDim *dim : *weight.dims())
    bytes *= dim->local();
  return bytes;
}

uint64_t tokenBytes(const KvLayer &layer) {
  uint64_t own = layer.scaling() == KvScaling::TokenHead ? 2 * sizeof(float) : 0;
  return (uint64_t(layer.key_dim()) + layer.value_dim()) * elementBytes(layer.dtype()) + own;
}

namespace {

constexpr uint64_t kMaxTokens = std::numeric_limits<int32_t>::max(); // positions are i32

bool isFloat(DType dtype) { return dtype <= DType::BF16; }

bool validateMesh(const Artifact &artifact, Error &error) {
  const Mesh *mesh = artifact.mesh();
  if (!mesh || mesh->tpa() == 0 || mesh->kvp() == 0 || mesh->ep() == 0 || mesh->tpf() == 0)
    return refuse(error, "mesh", "an axis is missing or has no ranks");
  uint64_t ranks = uint64_t(mesh->tpa()) * mesh->kvp();
  if (ranks != uint64_t(mesh->ep()) * mesh->tpf() || ranks > kMaxRanks)
    return refuse(error, "mesh",
                  "tpa * kvp = " + std::to_string(ranks) +
                      " and ep * tpf = " + std::to_string(uint64_t(mesh->ep()) * mesh->tpf()) +
                      " must be equal, and at most " + std::to_string(kMaxRanks));
  return true;
}

bool validateVocabulary(const Artifact &artifact, Error &error) {
  uint64_t ranks = axisSize(*artifact.mesh(), Axis::N), vocabulary = artifact.vocabulary();
  if (vocabulary == 0 || vocabulary > kMaxTokens)
    return refuse(error, "vocabulary", std::to_string(vocabulary) + " is not between 1 and 2^31 - 1");
  if (artifact.local_vocabulary() != (vocabulary + ranks - 1) / ranks)
    return refuse(error, "vocabulary",
                  "a rank's share " + std::to_string(artifact.local_vocabulary()) + " is not that of " +
                      std::to_string(ranks) + " ranks of " + std::to_string(vocabulary) + " ids");
  return true;
}

bool validateFile(const WeightFile &file, const std::string &where, Error &error) {
  if (!isText(file.path()) || file.path()->Get(0) == '/')
    return refuse(error, where, "the path is empty or absolute");
  return true;
}

bool validateDim(const Mesh &mesh, const WeightDim &dim, const std::string &where, Error &error) {
  if (dim.run() == 0 ? dim.stride() != 0 : dim.stride() < dim.run())
    return refuse(error, where, "the window's pieces overlap");
  std::optional<uint64_t> extent = dim.window_size();
  if (dim.run() != 0 && dim.window_size() != 0) {
    uint64_t last = dim.window_size() - 1;
    extent = product({last / dim.run(), dim.stride()});
    if (extent && __builtin_add_overflow(*extent, last % dim.run() + 1, &*extent))
      extent.reset();
  }
  if (!extent || *extent > dim.stored() || dim.window_offset() > dim.stored() - *extent)
    return refuse(error, where, "the window leaves the stored tensor");
  // The first coordinate's share is the largest along every axis.
  uint64_t share = dim.window_size();
  if (count(dim.splits()) > kMaxList)
    return refuse(error, where, "it is split more than " + std::to_string(kMaxList) + " times");
  for (flatbuffers::uoffset_t i = 0; i < count(dim.splits()); ++i) {
    const Split &split = *dim.splits()->Get(i);
    uint64_t ranks = split.axis() <= Axis::MAX ? axisSize(mesh, split.axis()) : 0;
    if (split.replicas() == 0 || ranks % split.replicas() != 0)
      return refuse(error, where, "the copies of a split's chunks do not divide its axis");
    std::optional<uint64_t> covered = product({split.chunk(), ranks / split.replicas()});
    if (!covered || *covered < share || split.chunk() == 0)
      return refuse(error, where, "a split has an unknown axis, or its chunks do not cover what they split");
    share = std::min(share, split.chunk());
  }
  if (share > dim.local())
    return refuse(error, where,
                  "a rank's share " + std::to_string(share) + " exceeds the local size " + std::to_string(dim.local()));
  return true;
}

/// Checks that bytes lie in a file and are as many as `rows` of `row` bytes.
bool validateRange(const Artifact &artifact, const FileRange *range, uint64_t rows, uint64_t row,
                   const std::string &where, Error &error) {
  if (!range || range->file() >= count(artifact.files()))
    return refuse(error, where, "it is missing, or its file is not in the list");
  uint64_t fileBytes = artifact.files()->Get(range->file())->bytes();
  if (range->length() > fileBytes || range->offset() > fileBytes - range->length())
    return refuse(error, where, "it leaves its file");
  std::optional<uint64_t> bytes = product({rows, row});
  return (bytes && *bytes == range->length()) || refuse(error, where, "its length is not that of its blocks");
}

/// Checks what belongs to a weight's codes; its own fields are checked but for `length`.
bool validateQuantization(const Artifact &artifact, const Weight &weight, const std::string &where, Error &error) {
  const Quantization &quantization = *weight.quantization();
  unsigned bits = quantization.bits();
  if ((bits != 2 && bits != 4 && bits != 8) || quantization.block() == 0 || !isFloat(quantization.scale_dtype()) ||
      quantization.zero() > ZeroPoint::MAX)
    return refuse(error, where, "its bits, block, scales or zero points are out of range");
  bool isRounded = quantization.activations() == DType::I8;
  if ((!isRounded && quantization.activations() != DType::F32) ||
      (isRounded && quantization.block() > kLongestInt8Block))
    return refuse(error, where, "activations are rounded to what they cannot be, or its blocks are too long for that");
  bool isTable = weight.use() == WeightUse::Table && !weight.transposed();
  bool isMatrix = weight.use() == WeightUse::Linear && weight.transposed();
  if (count(weight.dims()) != 2 || (!isTable && !isMatrix) || weight.dtype() != DType::F32 ||
      weight.stored_dtype() != DType::I8)
    return refuse(error, where, "it is quantised, but not a table or a transposed matrix that is computed in f32");
  uint64_t rows = weight.dims()->Get(0)->stored(), columns = weight.dims()->Get(1)->stored();
  if (columns == 0 || columns > (uint64_t(1) << 48) || weight.dims()->Get(1)->run() != 0)
    return refuse(error, where, "its rows are empty, too long, or taken in pieces");
  std::optional<uint64_t> row = product({columns, bits});
  std::optional<uint64_t> bytes = row ? product({rows, *row / 8}) : std::nullopt;
  if (!bytes || *row % 8 != 0 || *bytes != weight.length())
    return refuse(error, where, "its length is not that of its stored codes");
  uint64_t blocks = (columns - 1) / quantization.block() + 1, scale = elementBytes(quantization.scale_dtype());
  if (!validateRange(artifact, quantization.scales(), rows, blocks * scale, where + ", scales", error))
    return false;
  uint64_t zero = quantization.zero() == ZeroPoint::Packed ? (blocks * bits + 7) / 8
                  : quantization.zero() == ZeroPoint::Real ? blocks * scale
                                                           : 0;
  if (zero == 0)
    return !quantization.zero_points() || refuse(error, where, "it has zero points that it does not use");
  return validateRange(artifact, quantization.zero_points(), rows, zero, where + ", zero points", error);
}

bool validateWeight(const Artifact &artifact, const Weight &weight, const std::string &where, Error &error) {
  if (weight.file() >= count(artifact.files()))
    return refuse(error, where, "its file is not in the list");
  uint64_t fileBytes = artifact.files()->Get(weight.file())->bytes();
  if (weight.length() > fileBytes || weight.offset() > fileBytes - weight.length())
    return refuse(error, where, "it leaves its file");
  bool isCodes = weight.quantization() && weight.stored_dtype() == DType::I8;
  if ((!isFloat(weight.stored_dtype()) && !isCodes) || !isFloat(weight.dtype()) || weight.use() > WeightUse::MAX)
    return refuse(error, where, "its element type or use is unknown");
  if (weight.use() == WeightUse::Vector && weight.dtype() != DType::F32)
    return refuse(error, where, "vectors are kept in f32");
  if (weight.transposed() && weight.use() != WeightUse::Linear)
    return refuse(error, where, "it is transposed, but no product reads it");
  auto rank = count(weight.dims());
  if (rank < 1 || rank > 2 || (weight.use() != WeightUse::Vector && rank != 2))
    return refuse(error, where, "it has " + std::to_string(rank) + " dimensions, its use takes another number");
  uint64_t stored = elementBytes(weight.stored_dtype()), local = sizeof(float);
  for (flatbuffers::uoffset_t i = 0; i < rank; ++i) {
    const WeightDim &dim = *weight.dims()->Get(i);
    std::string place = where + ", dimension " + std::to_string(i);
    std::optional<uint64_t> more = product({stored, dim.stored()});
    // Room for padding when a kernel's variant packs it.
    std::optional<uint64_t> kept = product({local, std::max<uint64_t>(1, dim.local()) + 4096});
    if (!more || !kept || dim.local() == 0 || dim.local() > (uint64_t(1) << 40))
      return refuse(error, place, "its size is out of range");
    stored = *more, local = *kept;
    if (!validateDim(*artifact.mesh(), dim, place, error))
      return false;
  }
  if (weight.quantization())
    return validateQuantization(artifact, weight, where, error);
  if (stored != weight.length())
    return refuse(error, where, "its length is not that of its stored shape");
  return true;
}

bool validateKv(const Artifact &artifact, Error &error) {
  const KvLayout *kv = artifact.kv();
  if (!kv || kv->block() == 0 || kv->block() > 65536 || kv->slots() == 0)
    return refuse(error, "KV layout", "it is missing, or its block or number of slots is out of range");
  uint64_t cycle = uint64_t(kv->block()) * artifact.mesh()->kvp();
  if (kv->capacity() == 0 || kv->capacity() > kMaxTokens || kv->capacity() % cycle != 0)
    return refuse(error, "KV layout",
                  "a capacity of " + std::to_string(kv->capacity()) +
                      " tokens is out of range or not a multiple of block * kvp = " + std::to_string(cycle));
  uint64_t pages = kv->capacity() / cycle * kv->slots(); // below 2^63: each factor fits 32 bits
  if (pages > uint64_t(std::numeric_limits<int32_t>::max()))
    return refuse(error, "KV layout", "it has more pages than a block table can number");
  uint64_t total = 0;
  for (flatbuffers::uoffset_t i = 0; i < count(kv->layers()); ++i) {
    const KvLayer &layer = *kv->layers()->Get(i);
    constexpr uint32_t limit = 1 << 20;
    std::string where = "KV layer " + std::to_string(i);
    bool isCodes = layer.dtype() == DType::I8 || layer.dtype() == DType::F8E4M3;
    if ((!isFloat(layer.dtype()) && !isCodes) || layer.heads() == 0 || layer.heads() > limit || layer.key_dim() == 0 ||
        layer.key_dim() > limit || layer.value_dim() == 0 || layer.value_dim() > limit)
      return refuse(error, where, "its element type, heads or widths are out of range");
    auto isScale = [](float scale) { return scale >= 0x1p-126f && scale <= 0x1p126f; };
    if (layer.scaling() > KvScaling::MAX || isCodes != (layer.scaling() != KvScaling::None) ||
        (layer.scaling() == KvScaling::Tensor && !(isScale(layer.key_scale()) && isScale(layer.value_scale()))))
      return refuse(error, where, "its scales are not those of its element type");
    std::optional<uint64_t> bytes = product({pages, kv->block(), layer.heads(), tokenBytes(layer)});
    if (!bytes || (total += *bytes) > (uint64_t(1) << 62))
      return refuse(error, where, "the cache exceeds 2^62 bytes");
  }
  return true;
}

bool validateImage(const Image &image, const std::string &where, Error &error) {
  if (!isText(image.triple()) || !isText(image.features()))
    return refuse(error, where, "it does not say what processor it is for");
  if (count(image.code()) == 0 || checksum(image.code()->data(), image.code()->size()) != image.checksum())
    return refuse(error, where, "its code does not have its checksum");
  return true;
}

bool validateKernel(const Artifact &artifact, const Kernel &kernel, const std::string &where, Error &error) {
  if (!isText(kernel.symbol()) || kernel.image() >= count(artifact.images()) || kernel.groups() == 0)
    return refuse(error, where, "it has no symbol, image or groups");
  // FlatBuffers' verifier looks at a vector's length field alone, which is aligned to four bytes.
  if (kernel.buffers() && reinterpret_cast<uintptr_t>(kernel.buffers()->Data()) % alignof(uint64_t) != 0)
    return refuse(error, where, "its list of buffers is not aligned");
  if (count(kernel.buffers()) > kMaxList)
    return refuse(error, where, "it has more than " + std::to_string(kMaxList) + " buffers");
  std::vector<uint64_t> buffers;
  if (kernel.buffers())
    buffers.assign(kernel.buffers()->begin(), kernel.buffers()->end());
  uint64_t image = artifact.images()->Get(kernel.image())->checksum();
  if (kernelChecksum(image, kernel.symbol()->string_view(), kernel.groups(), buffers.data(), buffers.size()) !=
      kernel.checksum())
    return refuse(error, where, quoted(kernel.symbol()) + " does not have its checksum (sealKernels sets it)");
  return true;
}

bool validateEntry(const Artifact &artifact, const Entry &entry, const std::string &where, Error &error) {
  constexpr uint64_t arenaLimit = uint64_t(1) << 46;
  if (entry.kind() > EntryKind::MAX || entry.logits() > LogitRows::MAX)
    return refuse(error, where, "its kind is unknown");
  if (entry.device_bytes() > arenaLimit || entry.comm_bytes() > arenaLimit)
    return refuse(error, where, "an arena exceeds 2^46 bytes");
  if (entry.kind() == EntryKind::Stateless)
    return validatePorts(artifact, entry, where, error) && validateCommands(artifact, entry, where, error) &&
           validateStreams(entry, where, error);
  if (entry.batch() == 0 || entry.batch() > artifact.kv()->slots() || entry.tokens() == 0 ||
      uint64_t(entry.batch()) * entry.tokens() > kMaxTokens)
    return refuse(error, where,
                  "its batch " + std::to_string(entry.batch()) + " or tokens " + std::to_string(entry.tokens()) +
                      " are out of range");
  if (entry.kind() == EntryKind::Decode && entry.tokens() != 1)
    return refuse(error, where, "a decode entry takes one token");
  const Operand *logits = entry.logits_operand();
  std::string place = where + ", logits";
  if (!logits || (logits->space() != Space::Device && logits->space() != Space::Comm))
    return refuse(error, place, "they are missing or not in an arena");
  std::optional<uint64_t> bytes = product({entry.batch(), entry.logits() == LogitRows::All ? entry.tokens() : 1,
                                           artifact.local_vocabulary(), sizeof(float)});
  if (!bytes || logits->bytes() != *bytes)
    return refuse(error, place, "they do not have the bytes of their shape");
  return validatePlace(artifact, entry, *logits, place, error) && validateCommands(artifact, entry, where, error) &&
         validateStreams(entry, where, error);
}

/// Checks each element of a list under its name and number.
template <typename T, typename Check>
bool validateEach(const flatbuffers::Vector<flatbuffers::Offset<T>> *list, const char *name, Check check) {
  for (flatbuffers::uoffset_t i = 0; i < count(list); ++i)
    if (!check(*list->Get(i), name + (" " + std::to_string(i))))
      return false;
  return true;
}

} // namespace

bool validate(const Artifact &artifact, Error &error) {
  if (!validateMesh(artifact, error))
    return false;
  if (count(artifact.entries()) == 0)
    return refuse(error, "", "there is no entry");
  if (!isStateless(artifact) && (!validateVocabulary(artifact, error) || !validateKv(artifact, error)))
    return false;
  if (count(artifact.images()) > kMaxList)
    return refuse(error, "", "there are more than " + std::to_string(kMaxList) + " images");
  auto file = [&](const WeightFile &it, const std::string &where) { return validateFile(it, where, error); };
  auto weight = [&](const Weight &it, const std::string &where) {
    return validateWeight(artifact, it, where + " " + quoted(it.name()), error);
  };
  auto image = [&](const Image &it, const std::string &where) { return validateImage(it, where, error); };
  auto kernel = [&](const Kernel &it, const std::string &where) { return validateKernel(artifact, it, where, error); };
  auto entry = [&](const Entry &it, const std::string &where) { return validateEntry(artifact, it, where, error); };
  return validateEach(artifact.files(), "file", file) && validateEach(artifact.weights(), "weight", weight) &&
         validateEach(artifact.images(), "image", image) && validateEach(artifact.kernels(), "kernel", kernel) &&
         validateEach(artifact.entries(), "entry", entry);
}

} // namespace helix::artifact
