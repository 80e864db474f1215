//===- TinyModel.cpp - A decoder small enough to work out by hand ----------===//
#include "TinyModel.h"
#include "lib/Artifact/Writer.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <random>
#include <stdexcept>
#include <unistd.h>
#include <utility>

namespace helix::test {

using namespace artifact;

TinyModel::TinyModel(unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  auto add = [&](const std::string &name, std::vector<uint64_t> shape, float deviation, float mean = 0) {
    Tensor tensor{shape, {}};
    size_t count = 1;
    for (uint64_t size : shape)
      count *= size;
    for (size_t i = 0; i < count; ++i)
      tensor.values.push_back(mean + deviation * normal(random));
    tensors[name] = tensor;
  };
  add("embedding", {vocabulary, hidden}, 1);
  add("final_norm", {hidden}, 0.2f, 1);
  add("head", {hidden, vocabulary}, 0.5f);
  for (uint64_t layer = 0; layer < layers; ++layer) {
    std::string prefix = "layer" + std::to_string(layer) + ".";
    add(prefix + "norm1", {hidden}, 0.2f, 1);
    add(prefix + "norm2", {hidden}, 0.2f, 1);
    add(prefix + "q", {hidden, heads * dim}, 0.5f);
    add(prefix + "k", {hidden, kvHeads * dim}, 0.5f);
    add(prefix + "v", {hidden, kvHeads * dim}, 0.3f);
    add(prefix + "o", {heads * dim, hidden}, 0.3f);
    add(prefix + "gate", {hidden, ffn}, 0.3f);
    add(prefix + "up", {hidden, ffn}, 0.3f);
    add(prefix + "down", {ffn, hidden}, 0.3f);
  }
  Tensor cosines{{positions, dim / 2}, {}}, sines = cosines;
  for (uint64_t p = 0; p < positions; ++p)
    for (uint64_t i = 0; i < dim / 2; ++i) {
      double angle = double(p) * std::pow(100.0, -2.0 * double(i) / dim);
      cosines.values.push_back(float(std::cos(angle)));
      sines.values.push_back(float(std::sin(angle)));
    }
  tensors["cos"] = cosines;
  tensors["sin"] = sines;
  uint64_t offset = 0;
  for (auto &[name, tensor] : tensors) {
    tensor.offset = offset;
    offset += tensor.values.size() * sizeof(float);
  }
}

std::vector<float> TinyModel::fileContents() const {
  std::vector<float> all;
  for (const auto &[name, tensor] : tensors)
    all.insert(all.end(), tensor.values.begin(), tensor.values.end());
  return all;
}

namespace {

using Row = std::vector<double>;

Row multiply(const Row &x, const TinyModel::Tensor &weight) {
  Row y(weight.shape[1]);
  for (size_t i = 0; i < x.size(); ++i)
    for (size_t j = 0; j < y.size(); ++j)
      y[j] += x[i] * weight.values[i * y.size() + j];
  return y;
}

Row normalize(const Row &x, const TinyModel::Tensor &scale) {
  double sum = 0;
  for (double value : x)
    sum += value * value;
  Row y(x);
  for (size_t i = 0; i < x.size(); ++i)
    y[i] = x[i] / std::sqrt(sum / double(x.size()) + 1e-5) * scale.values[i];
  return y;
}

void rotate(Row &x, const TinyModel &model, size_t position) {
  const auto &cosines = model.tensors.at("cos").values, &sines = model.tensors.at("sin").values;
  for (size_t head = 0; head < x.size() / model.dim; ++head)
    for (size_t i = 0; i < 2; ++i) {
      double &a = x[head * 4 + i], &b = x[head * 4 + i + 2], c = cosines[position * 2 + i], s = sines[position * 2 + i];
      double rotated = a * c - b * s;
      b = b * c + a * s;
      a = rotated;
    }
}

} // namespace

std::vector<std::vector<double>> TinyModel::logits(const std::vector<int64_t> &ids) const {
  std::vector<Row> x;
  for (int64_t id : ids) {
    const float *row = tensors.at("embedding").values.data() + size_t(id) * hidden;
    x.emplace_back(row, row + hidden);
  }
  for (uint64_t layer = 0; layer < layers; ++layer) {
    auto weight = [&](const char *name) -> const Tensor & {
      return tensors.at("layer" + std::to_string(layer) + "." + name);
    };
    std::vector<Row> keys, values;
    for (size_t t = 0; t < x.size(); ++t) {
      Row n = normalize(x[t], weight("norm1")), q = multiply(n, weight("q"));
      keys.push_back(multiply(n, weight("k")));
      values.push_back(multiply(n, weight("v")));
      rotate(q, *this, t);
      rotate(keys.back(), *this, t);
      Row attended(heads * dim);
      for (size_t head = 0; head < heads; ++head) {
        size_t kv = head / (heads / kvHeads) * dim;
        Row weights;
        double total = 0;
        for (size_t s = 0; s <= t; ++s) {
          double score = 0;
          for (size_t i = 0; i < dim; ++i)
            score += q[head * dim + i] * keys[s][kv + i];
          weights.push_back(std::exp(score / std::sqrt(double(dim))));
          total += weights.back();
        }
        for (size_t s = 0; s <= t; ++s)
          for (size_t i = 0; i < dim; ++i)
            attended[head * dim + i] += weights[s] / total * values[s][kv + i];
      }
      Row o = multiply(attended, weight("o"));
      for (size_t i = 0; i < hidden; ++i)
        x[t][i] += o[i];
      n = normalize(x[t], weight("norm2"));
      Row gate = multiply(n, weight("gate")), up = multiply(n, weight("up"));
      for (size_t i = 0; i < ffn; ++i)
        gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      Row down = multiply(gate, weight("down"));
      for (size_t i = 0; i < hidden; ++i)
        x[t][i] += down[i];
    }
  }
  for (Row &row : x)
    row = multiply(normalize(row, tensors.at("final_norm")), tensors.at("head"));
  return x;
}

namespace {

uint64_t ceilDiv(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

/// Builds an artifact; every value of an entry has a place of its own.
class Builder {
public:
  Builder(const TinyModel &model, const TinyOptions &options) : model(model), options(options) {
    ranks = options.tpa * options.kvp;
    localVocabulary = ceilDiv(model.vocabulary, ranks);
  }

  ArtifactT build() {
    artifact.compiler = "test";
    artifact.mesh = std::make_unique<MeshT>();
    artifact.mesh->tpa = options.tpa;
    artifact.mesh->kvp = options.kvp;
    artifact.mesh->ep = 1;
    artifact.mesh->tpf = ranks;
    artifact.vocabulary = model.vocabulary;
    artifact.local_vocabulary = localVocabulary;
    auto file = std::make_unique<WeightFileT>();
    file->path = "model.bin";
    file->bytes = model.fileContents().size() * sizeof(float);
    artifact.files.push_back(std::move(file));
    artifact.kv = std::make_unique<KvLayoutT>();
    artifact.kv->block = model.block;
    artifact.kv->capacity = options.capacity;
    artifact.kv->slots = options.slots;
    for (uint64_t i = 0; i < model.layers; ++i) {
      auto layer = std::make_unique<KvLayerT>();
      layer->heads = uint32_t(model.kvHeads / options.tpa);
      layer->key_dim = layer->value_dim = model.dim;
      layer->dtype = options.cache;
      layer->scaling = options.scaling;
      if (options.scaling == KvScaling::Tensor)
        layer->key_scale = layer->value_scale = 1.0f / 16;
      artifact.kv->layers.push_back(std::move(layer));
    }
    auto image = std::make_unique<ImageT>();
    image->triple = "x86_64-unknown-linux-gnu";
    image->features = "x86-64-v3";
    std::ifstream code(HELIX_TEST_KERNELS, std::ios::binary);
    image->code.assign(std::istreambuf_iterator<char>(code), {});
    if (image->code.empty())
      throw std::runtime_error("no test kernels at " HELIX_TEST_KERNELS);
    artifact.images.push_back(std::move(image));
    addEntry(EntryKind::Decode, 1, LogitRows::Last);
    if (options.chunk != 0)
      addEntry(EntryKind::Prefill, options.chunk, options.prefillLogits);
    sealKernels(artifact);
    return std::move(artifact);
  }

private:
  struct Cut {
    Axis axis;
    uint64_t chunk;
  };
  struct Part {
    uint32_t begin, size;
  };

  /// `all` in `count` parts, the first ones larger by one where they are not equal.
  static std::vector<Part> divide(uint32_t all, uint32_t count) {
    std::vector<Part> parts;
    count = std::clamp(count, 1u, all);
    for (uint32_t i = 0, begin = 0; i < count; ++i) {
      parts.push_back({begin, all / count + (i < all % count)});
      begin += parts.back().size;
    }
    return parts;
  }

  /// With `columns`, those of the tensor alone.
  OperandT weight(const std::string &name, WeightUse use, std::vector<std::vector<Cut>> cuts = {},
                  std::vector<uint64_t> local = {}, std::optional<Part> columns = {}) {
    const TinyModel::Tensor &tensor = model.tensors.at(name);
    if (local.empty())
      local = tensor.shape;
    DType dtype = use == WeightUse::Vector ? DType::F32 : options.weights;
    std::string key = name + (columns ? " from " + std::to_string(columns->begin) : "");
    if (!weights.count(key)) {
      auto it = std::make_unique<WeightT>();
      it->name = name;
      it->offset = tensor.offset;
      it->length = tensor.values.size() * sizeof(float);
      it->dtype = dtype;
      it->use = use;
      for (size_t i = 0; i < tensor.shape.size(); ++i) {
        auto dim = std::make_unique<WeightDimT>();
        dim->stored = dim->window_size = tensor.shape[i];
        if (columns && i == 1)
          dim->window_offset = columns->begin, dim->window_size = columns->size;
        dim->local = local[i];
        for (const Cut &cut : i < cuts.size() ? cuts[i] : std::vector<Cut>()) {
          auto split = std::make_unique<SplitT>();
          split->axis = cut.axis;
          split->chunk = cut.chunk;
          dim->splits.push_back(std::move(split));
        }
        it->dims.push_back(std::move(dim));
      }
      weights[key] = uint32_t(artifact.weights.size());
      artifact.weights.push_back(std::move(it));
    }
    OperandT operand;
    operand.space = Space::Weight;
    operand.index = weights[key];
    operand.bytes = dtype == DType::F32 ? 4 : 2;
    for (uint64_t size : local)
      operand.bytes *= size;
    return operand;
  }

  OperandT place(Space space, uint64_t elements) {
    uint64_t &end = space == Space::Comm ? entry->comm_bytes : entry->device_bytes;
    OperandT operand;
    operand.space = space;
    operand.offset = end;
    operand.bytes = elements * sizeof(float);
    end += ceilDiv(operand.bytes, 64) * 64;
    return operand;
  }

  OperandT input(uint32_t index) {
    OperandT operand;
    operand.space = Space::Input;
    operand.index = index;
    operand.bytes = index == 0 ? rows * 8 : entry->batch * 4;
    return operand;
  }

  OperandT cache(uint32_t layer) {
    OperandT operand;
    operand.space = Space::Kv;
    operand.index = layer;
    return operand;
  }

  template <typename Work> void command(Work work, std::vector<OperandT> inputs, std::vector<OperandT> outputs) {
    auto it = std::make_unique<CommandT>();
    it->work.Set(std::move(work));
    for (OperandT &operand : inputs)
      it->inputs.push_back(std::make_unique<OperandT>(operand));
    for (OperandT &operand : outputs)
      it->outputs.push_back(std::make_unique<OperandT>(operand));
    it->phase = phase;
    it->stream = stream;
    it->cost = std::exchange(cost, nullptr);
    it->source = "node" + std::to_string(entry->commands.size());
    entry->commands.push_back(std::move(it));
  }

  uint32_t record() {
    RecordT work;
    work.event = entry->events++;
    command(work, {}, {});
    return work.event;
  }

  void wait(uint32_t event) {
    WaitT work;
    work.event = event;
    command(work, {}, {});
  }

  /// Issues a collective on what was just computed, on the second stream if there is one, where the event that is
  /// returned follows it.
  template <typename Work> uint32_t exchange(Work work, const OperandT &from, const OperandT &to) {
    if (options.chunks == 0) {
      command(std::move(work), {from}, {to});
      return 0;
    }
    uint32_t ready = record();
    stream = 1;
    wait(ready);
    command(std::move(work), {from}, {to});
    uint32_t done = record();
    stream = 0;
    return done;
  }

  void await(uint32_t event) {
    if (options.chunks != 0)
      wait(event);
  }

  OperandT generated(const std::string &symbol, std::vector<OperandT> inputs, uint64_t elements) {
    OperandT output = place(Space::Device, elements);
    auto kernel = std::make_unique<KernelT>();
    kernel->symbol = symbol;
    kernel->groups = uint32_t(rows);
    for (const OperandT &operand : inputs)
      kernel->buffers.push_back(operand.bytes);
    kernel->buffers.push_back(output.bytes);
    GeneratedT work;
    work.kernel = uint32_t(artifact.kernels.size());
    artifact.kernels.push_back(std::move(kernel));
    command(std::move(work), inputs, {output});
    return output;
  }

  OperandT norm(const OperandT &x, const std::string &name) {
    return generated("rms_norm_16", {x, weight(name, WeightUse::Vector)}, rows * model.hidden);
  }

  OperandT linear(const OperandT &x, const OperandT &matrix, uint64_t k, uint64_t n, Space space = Space::Device,
                  uint64_t count = 0) {
    LinearT work;
    work.rows = count ? count : rows;
    work.k = k;
    work.n = n;
    OperandT y = place(space, work.rows * n);
    command(std::move(work), {x, matrix}, {y});
    return y;
  }

  struct Pending {
    OperandT whole;
    uint32_t event;
  };

  Pending startAllReduce(const OperandT &partial) {
    AllReduceT work;
    work.axis = Axis::N;
    work.elements = partial.bytes / sizeof(float);
    OperandT whole = place(Space::Comm, work.elements);
    return {whole, exchange(std::move(work), partial, whole)};
  }

  OperandT allReduce(const OperandT &partial) {
    Pending pending = startAllReduce(partial);
    await(pending.event);
    return pending.whole;
  }

  OperandT rope(const OperandT &x, uint64_t headCount) {
    return generated("rope_" + std::to_string(headCount) + "_" + std::to_string(entry->tokens),
                     {x, weight("cos", WeightUse::Vector), weight("sin", WeightUse::Vector), input(1)},
                     rows * headCount * model.dim);
  }

  OperandT attention(const OperandT &n, const std::string &prefix, uint32_t layer) {
    uint32_t heads = uint32_t(model.heads / options.tpa), kvHeads = uint32_t(model.kvHeads / options.tpa);
    uint32_t share = uint32_t(ceilDiv(heads, options.kvp)), dim = model.dim;
    auto project = [&](const char *name, uint64_t count) {
      return linear(
          n, weight(prefix + name, WeightUse::Linear, {{}, {{Axis::Tpa, count * dim}}}, {model.hidden, count * dim}),
          model.hidden, count * dim);
    };
    OperandT q = rope(project("q", heads), heads), k = rope(project("k", kvHeads), kvHeads), v = project("v", kvHeads);
    KvAppendT append;
    append.batch = entry->batch;
    append.tokens = entry->tokens;
    append.heads = kvHeads;
    append.key_dim = append.value_dim = dim;
    command(std::move(append), {k, v, input(1), input(2), cache(layer)}, {});
    PartialAttentionT partial;
    partial.batch = entry->batch;
    partial.tokens = entry->tokens;
    partial.heads = heads;
    partial.padded_heads = share * options.kvp;
    partial.key_dim = partial.value_dim = dim;
    partial.scale = 0.5;
    MergeAttentionT merge;
    bool tokens = entry->tokens > 1;
    merge.along = tokens ? ChunkDim::Tokens : ChunkDim::Batch;
    std::vector<OperandT> stacked;
    std::vector<uint32_t> exchanged;
    for (Part part : divide(tokens ? entry->tokens : entry->batch, options.chunks)) {
      if (options.chunks != 0) {
        partial.batch_begin = tokens ? 0 : part.begin;
        partial.batch_count = tokens ? partial.batch : part.size;
        partial.token_begin = tokens ? part.begin : 0;
        partial.token_count = tokens ? part.size : 1;
        merge.chunks.push_back(part.size);
      }
      uint64_t elements = uint64_t(tokens ? entry->batch : 1) * part.size * partial.padded_heads * (dim + 1);
      OperandT send = place(Space::Comm, elements);
      stacked.push_back(place(Space::Comm, elements));
      double share = double(part.size) / (tokens ? entry->tokens : entry->batch);
      cost = std::make_unique<CostT>();
      cost->bytes_per_query = 4.0 * heads * dim * (options.chunks ? share : 1);
      cost->bytes_per_cached = double(tokens || !options.chunks ? entry->batch : part.size) * kvHeads * 2 * dim *
                               (options.cache == DType::F32 ? 4 : 2);
      cost->flops_per_query_cached = 2.0 * heads * 2 * dim * (options.chunks ? share : 1);
      command(partial, {q, cache(layer), input(1), input(2)}, {send});
      AllToAllT work;
      work.axis = Axis::Kvp;
      work.chunk = send.bytes / options.kvp;
      exchanged.push_back(exchange(std::move(work), send, stacked.back()));
    }
    for (uint32_t event : exchanged)
      await(event);
    merge.peers = options.kvp;
    merge.batch = entry->batch;
    merge.tokens = entry->tokens;
    merge.heads = share;
    merge.value_dim = dim;
    OperandT merged = place(Space::Device, rows * share * dim);
    command(std::move(merge), stacked, {merged});
    phase = Phase::Tp;
    std::vector<Pending> sums;
    ConcatT concat;
    concat.rows = rows;
    for (Part columns : divide(model.hidden, options.chunks ? 2 : 1)) {
      OperandT out = weight(prefix + "o", WeightUse::Linear,
                            {{{Axis::Tpa, uint64_t(heads) * dim}, {Axis::Kvp, uint64_t(share) * dim}}, {}},
                            {uint64_t(share) * dim, columns.size}, columns);
      sums.push_back(startAllReduce(linear(merged, out, share * dim, columns.size, Space::Comm)));
      concat.widths.push_back(columns.size);
    }
    for (const Pending &sum : sums)
      await(sum.event);
    if (sums.size() == 1)
      return sums[0].whole;
    OperandT whole = place(Space::Device, rows * model.hidden);
    command(std::move(concat), {sums[0].whole, sums[1].whole}, {whole});
    return whole;
  }

  OperandT feedForward(const OperandT &n, const std::string &prefix) {
    uint64_t share = ceilDiv(model.ffn, ranks);
    auto project = [&](const char *name) {
      return linear(n, weight(prefix + name, WeightUse::Linear, {{}, {{Axis::Tpf, share}}}, {model.hidden, share}),
                    model.hidden, share);
    };
    OperandT gate = project("gate"), up = project("up");
    OperandT product = generated("silu_mul_" + std::to_string(share), {gate, up}, rows * share);
    OperandT down = weight(prefix + "down", WeightUse::Linear, {{{Axis::Tpf, share}}, {}}, {share, model.hidden});
    return allReduce(linear(product, down, share, model.hidden, Space::Comm));
  }

  void addEntry(EntryKind kind, uint32_t tokens, LogitRows logits) {
    artifact.entries.push_back(std::make_unique<EntryT>());
    entry = artifact.entries.back().get();
    entry->kind = kind;
    entry->batch = options.slots;
    entry->tokens = tokens;
    entry->logits = logits;
    entry->streams = options.chunks != 0 ? 2 : 1;
    rows = uint64_t(options.slots) * tokens;
    phase = Phase::None;
    EmbeddingT embedding;
    embedding.rows = rows;
    embedding.vocabulary = localVocabulary;
    embedding.hidden = model.hidden;
    OperandT partial = place(Space::Comm, rows * model.hidden);
    command(std::move(embedding),
            {input(0), weight("embedding", WeightUse::Table, {{{Axis::N, localVocabulary}}, {}},
                              {localVocabulary, model.hidden})},
            {partial});
    OperandT x = allReduce(partial);
    auto add = [&](const OperandT &a, const OperandT &b) { return generated("add_16", {a, b}, rows * model.hidden); };
    for (uint32_t layer = 0; layer < model.layers; ++layer) {
      std::string prefix = "layer" + std::to_string(layer) + ".";
      phase = Phase::Kvp;
      x = add(x, attention(norm(x, prefix + "norm1"), prefix, layer));
      phase = Phase::Tp;
      x = add(x, feedForward(norm(x, prefix + "norm2"), prefix));
    }
    phase = Phase::None;
    x = norm(x, "final_norm");
    uint64_t count = rows;
    if (logits == LogitRows::Last) {
      count = options.slots;
      LastTokenT last;
      last.batch = options.slots;
      last.tokens = tokens;
      last.hidden = model.hidden;
      OperandT y = place(Space::Device, count * model.hidden);
      command(std::move(last), {x, input(2)}, {y});
      x = y;
    }
    OperandT head =
        weight("head", WeightUse::Linear, {{}, {{Axis::N, localVocabulary}}}, {model.hidden, localVocabulary});
    OperandT y = linear(x, head, model.hidden, localVocabulary, Space::Device, count);
    entry->logits_operand = std::make_unique<OperandT>(y);
  }

  const TinyModel &model;
  const TinyOptions &options;
  uint32_t ranks;
  uint64_t localVocabulary, rows = 0;
  Phase phase = Phase::None;
  uint32_t stream = 0;
  std::unique_ptr<CostT> cost; ///< of the next command, if it has one
  ArtifactT artifact;
  EntryT *entry = nullptr;
  std::map<std::string, uint32_t> weights;
};

} // namespace

ArtifactT tinyArtifact(const TinyModel &model, const TinyOptions &options) { return Builder(model, options).build(); }

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "helix-test-XXXXXX").string();
  if (!::mkdtemp(pattern.data()))
    throw std::runtime_error("cannot make a temporary directory");
  path = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

void writeFile(const std::string &path, const void *bytes, size_t count) {
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char *>(bytes), std::streamsize(count));
  if (!file.flush())
    throw std::runtime_error("cannot write " + path);
}

std::string writeTiny(const TemporaryDirectory &directory, const TinyModel &model, const TinyOptions &options) {
  std::vector<float> contents = model.fileContents();
  writeFile(directory.file("model.bin"), contents.data(), contents.size() * sizeof(float));
  Error error;
  if (!writeArtifact(tinyArtifact(model, options), directory.file("model.hlx"), error))
    throw std::runtime_error(error.message);
  return directory.file("model.hlx");
}

} // namespace helix::test
