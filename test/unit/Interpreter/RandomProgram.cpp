//===- RandomProgram.cpp - Small random decoders, and how two of them compare ===//
#include "test/unit/Interpreter/RandomProgram.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Parser/Parser.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

#include <cmath>
#include <fstream>

using namespace mlir;

namespace helix::test {

TemporaryDirectory::TemporaryDirectory() {
  llvm::SmallString<64> path;
  if (llvm::sys::fs::createUniqueDirectory("helix", path))
    llvm::report_fatal_error("cannot make a temporary directory");
  name = path.str().str();
}

TemporaryDirectory::~TemporaryDirectory() { llvm::sys::fs::remove_directories(name); }

ProgramShape randomShape(std::mt19937_64 &random) {
  auto pick = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
  ProgramShape shape;
  shape.layers = pick(1, 3);
  shape.hidden = pick(5, 13);
  shape.kvHeads = pick(1, 5);
  shape.heads = shape.kvHeads * pick(1, 3);
  shape.headDim = 2 * pick(1, 4);
  shape.ffn = pick(3, 17);
  shape.vocabulary = pick(5, 23);
  shape.batch = pick(1, 3);
  shape.chunk = pick(2, 7);
  shape.block = pick(1, 4);
  shape.capacity = shape.block * pick(24 / shape.block, 40 / shape.block);
  shape.packed = pick(0, 1);
  shape.decomposed = pick(0, 1);
  shape.interleaved = pick(0, 1);
  shape.allLogits = pick(0, 1);
  const char *weights[] = {"f32", "f16", "bf16"};
  shape.weight = weights[pick(0, 2)];
  for (bool *feature : {&shape.bias, &shape.headNorm, &shape.scaled, &shape.tail, &shape.layerNorm, &shape.postNorm,
                        &shape.parallel, &shape.learned, &shape.gated, &shape.tied, &shape.transposed})
    *feature = pick(0, 1);
  for (bool *feature : {&shape.slopes, &shape.sinks})
    *feature = pick(0, 2) == 0;
  shape.softcap = pick(0, 1) * 1.5;
  shape.window = pick(0, 1) * pick(1, 9);
  const char *activations[] = {"silu", "gelu", "gelu_tanh", "relu"};
  shape.activation = activations[pick(0, 3)];
  return shape;
}

std::string describe(const ProgramShape &s) {
  std::string text;
  llvm::raw_string_ostream(text) << "layers " << s.layers << " hidden " << s.hidden << " heads " << s.heads << "/"
                                 << s.kvHeads << " of " << s.headDim << " ffn " << s.ffn << " vocabulary "
                                 << s.vocabulary << " batch " << s.batch << " chunk " << s.chunk << " block " << s.block
                                 << " capacity " << s.capacity << " packed " << s.packed << " decomposed "
                                 << s.decomposed << " bias " << s.bias << " layer norm " << s.layerNorm << " post norm "
                                 << s.postNorm << " parallel " << s.parallel << " learned " << s.learned << " tied "
                                 << s.tied << " transposed " << s.transposed << " softcap " << s.softcap << " window "
                                 << s.window << " slopes " << s.slopes << " sinks " << s.sinks << " gated " << s.gated
                                 << " " << s.activation << " head norm " << s.headNorm << " row norm " << s.rowNorm
                                 << " scaled " << s.scaled << " tail " << s.tail << " weights " << s.weight;
  return text;
}

std::unique_ptr<MLIRContext> makeContext() {
  DialectRegistry registry;
  registry.insert<HelixDialect, arith::ArithDialect, func::FuncDialect, math::MathDialect, tensor::TensorDialect>();
  return std::make_unique<MLIRContext>(registry, MLIRContext::Threading::DISABLED);
}

namespace {

/// `tensor<2x3xf32>`.
std::string tensorType(ArrayRef<int64_t> shape, StringRef element) {
  std::string text = "tensor<";
  for (int64_t size : shape)
    text += std::to_string(size) + "x";
  return text + element.str() + ">";
}

/// Writes the weights' file and the ops that refer to it.
struct WeightFile {
  std::mt19937_64 &random;
  std::vector<float> values;
  llvm::StringMap<int64_t> offsets;

  /// `helix.weight` of normal random values times `scale` plus `mean`; the same bytes each time it is named.
  std::string op(StringRef name, ArrayRef<int64_t> shape, double scale, double mean = 0, StringRef element = "f32") {
    int64_t size = 1;
    for (int64_t s : shape)
      size *= s;
    auto [place, isNew] = offsets.try_emplace(name, values.size() * 4);
    for (int64_t i = 0; isNew && i < size; ++i)
      values.push_back(mean + scale * std::normal_distribution<double>()(random));
    return attributes(name, place->second, shape, element);
  }

  std::string table(StringRef name, ArrayRef<int64_t> shape, llvm::function_ref<double(int64_t, int64_t)> value) {
    auto [place, isNew] = offsets.try_emplace(name, values.size() * 4);
    for (int64_t i = 0; isNew && i < shape[0]; ++i)
      for (int64_t j = 0; j < shape[1]; ++j)
        values.push_back(value(i, j));
    return attributes(name, place->second, shape, "f32");
  }

  /// The weight called `name`, [rows, columns], as [columns, rows].
  std::string transposed(StringRef name, ArrayRef<int64_t> shape, StringRef element) {
    return attributes(name, offsets.at(name), shape, element, /*transposed=*/true);
  }

  static std::string attributes(StringRef name, int64_t offset, ArrayRef<int64_t> shape, StringRef element,
                                bool transposed = false) {
    int64_t size = 4;
    for (int64_t s : shape)
      size *= s;
    std::string text;
    llvm::raw_string_ostream(text) << "helix.weight \"" << name << "\" {file = \"weights\", offset = " << offset
                                   << " : i64, length = " << size << " : i64, stored = " << tensorType(shape, "f32")
                                   << (transposed ? ", transposed" : "") << "} : "
                                   << (transposed ? tensorType({shape[1], shape[0]}, element)
                                                  : tensorType(shape, element));
    return text;
  }
};

/// Prints one entry, op by op; every value has a type of its own name.
struct EntryPrinter {
  const ProgramShape &s;
  WeightFile &weights;
  llvm::raw_ostream &os;
  int64_t tokens;
  bool allLogits;
  int next = 0;

  std::string activations(int64_t width, int64_t rows = 0) {
    return tensorType({s.batch, rows ? rows : tokens, width}, "f32");
  }
  std::string headsType(int64_t heads) { return tensorType({s.batch, tokens, heads, s.headDim}, "f32"); }
  std::string lengthsType() { return tensorType({s.batch}, "i32"); }

  std::string line(const std::string &op) {
    std::string name = "%v" + std::to_string(next++);
    os << "    " << name << " = " << op << "\n";
    return name;
  }

  /// A product's matrix [in, out], stored so or transposed.
  std::string matrix(const std::string &name, int64_t in, int64_t out, double scale) {
    if (!s.transposed)
      return line(weights.op(name, {in, out}, scale, 0, s.weight));
    (void)weights.op(name, {out, in}, scale);
    return line(weights.transposed(name, {out, in}, s.weight));
  }

  std::string linear(const std::string &x, StringRef name, int64_t in, int64_t out, double scale, int64_t rows = 0) {
    std::string w = matrix(name.str(), in, out, scale / std::sqrt(in));
    return line("helix.linear " + x + ", " + w + " : (" + activations(in, rows) + ", " +
                tensorType({in, out}, s.weight) + ") -> " + activations(out, rows));
  }

  /// A product and its bias, as one op or as two.
  std::string biased(const std::string &x, StringRef name, int64_t in, int64_t out, double scale) {
    if (!s.bias)
      return linear(x, name, in, out, scale);
    std::string vector = tensorType({out}, "f32");
    if (s.decomposed) {
      std::string y = linear(x, name, in, out, scale);
      return binary("arith.addf", y, repeated((name + "_bias").str(), out, scale, 0), out);
    }
    std::string w = matrix(name.str(), in, out, scale / std::sqrt(in));
    std::string b = line(weights.op((name + "_bias").str(), {out}, scale));
    return line("helix.linear " + x + ", " + w + ", " + b + " : (" + activations(in) + ", " +
                tensorType({in, out}, s.weight) + ", " + vector + ") -> " + activations(out));
  }

  /// A vector for every token.
  std::string repeated(StringRef name, int64_t width, double scale, double mean, int64_t rows = 0) {
    std::string vector = line(weights.op(name, {width}, scale, mean));
    return line("helix.broadcast " + vector + " : " + tensorType({width}, "f32") + " -> " + activations(width, rows));
  }

  std::string constant(double value, int64_t width, int64_t rows = 0) {
    char text[32];
    snprintf(text, sizeof(text), "%.9e", value);
    return line(std::string("arith.constant dense<") + text + "> : " + activations(width, rows));
  }

  /// The heads' norms, before rope.
  std::string headNorm(const std::string &x, StringRef name, int64_t heads) {
    if (!s.headNorm || s.rowNorm)
      return x;
    std::string scale = line(weights.op(name, {s.headDim}, 0.1 * s.sharpness, s.sharpness));
    return line((s.layerNorm ? "helix.layer_norm " : "helix.rms_norm ") + x + ", " + scale +
                " {epsilon = 1.0e-6 : f64} : " + headsType(heads) + ", " + tensorType({s.headDim}, "f32"));
  }

  std::string postNorm(const std::string &x, const std::string &name) { return s.postNorm ? norm(x, name) : x; }

  /// The activation of `x` [..., ffn] as arithmetic.
  std::string activated(const std::string &x) {
    int64_t w = s.ffn;
    auto mul = [&](const std::string &a, const std::string &b) { return binary("arith.mulf", a, b, w); };
    auto add = [&](const std::string &a, const std::string &b) { return binary("arith.addf", a, b, w); };
    auto unary = [&](const char *op, const std::string &a) {
      return line(std::string(op) + " " + a + " : " + activations(w));
    };
    if (s.activation == "relu")
      return binary("arith.maximumf", constant(0, w), x, w);
    if (s.activation == "gelu")
      return mul(constant(0.5, w),
                 mul(add(unary("math.erf", binary("arith.divf", x, constant(M_SQRT2, w), w)), constant(1, w)), x));
    if (s.activation == "gelu_tanh") {
      std::string cube = mul(x, mul(x, x));
      std::string inner = mul(add(mul(cube, constant(0.044715, w)), x), constant(M_SQRT1_2 * M_2_SQRTPI, w));
      return mul(mul(x, constant(0.5, w)), add(constant(1, w), unary("math.tanh", inner)));
    }
    std::string one = constant(1, w);
    return mul(binary("arith.divf", one, add(one, unary("math.exp", unary("arith.negf", x))), w), x);
  }

  /// The norm of all heads at once.
  std::string rowNorm(const std::string &x, const std::string &name, int64_t heads) {
    if (!s.rowNorm)
      return x;
    int64_t width = heads * s.headDim;
    std::string scale = line(weights.op(name, {width}, 0.1 * s.sharpness, s.sharpness));
    return line("helix.rms_norm " + x + ", " + scale + " {epsilon = 1.0e-6 : f64} : " + activations(width) + ", " +
                tensorType({width}, "f32"));
  }

  std::string scaled(const std::string &x, double by) {
    return s.scaled ? binary("arith.mulf", x, constant(by, s.hidden), s.hidden) : x;
  }

  /// The last token's row of `x`, of `width` elements.
  std::string lastToken(const std::string &x, int64_t width) {
    return line("helix.last_token " + x + ", %q_len : " + activations(width) + ", " + lengthsType() + " -> " +
                activations(width, 1));
  }

  /// What follows the final product: cap * tanh(scale * x / cap).
  std::string tail(std::string x, int64_t rows) {
    if (!s.tail)
      return x;
    std::string scale = repeated("logit_scale", s.vocabulary, 0.2, 1, rows);
    x = binary("arith.mulf", scale, x, s.vocabulary, rows);
    x = binary("arith.divf", x, constant(3, s.vocabulary, rows), s.vocabulary, rows);
    x = line("math.tanh " + x + " : " + activations(s.vocabulary, rows));
    return binary("arith.mulf", x, constant(3, s.vocabulary, rows), s.vocabulary, rows);
  }

  std::string norm(const std::string &x, StringRef name) {
    std::string scale = line(weights.op(name, {s.hidden}, 0.1, 1)), vector = ", " + tensorType({s.hidden}, "f32");
    if (!s.layerNorm)
      return line("helix.rms_norm " + x + ", " + scale + " {epsilon = 1.0e-5 : f64} : " + activations(s.hidden) +
                  vector);
    if (!s.bias)
      return line("helix.layer_norm " + x + ", " + scale + " {epsilon = 1.0e-5 : f64} : " + activations(s.hidden) +
                  vector);
    std::string bias = line(weights.op((name + "_bias").str(), {s.hidden}, 0.1));
    return line("helix.layer_norm " + x + ", " + scale + ", " + bias +
                " {epsilon = 1.0e-5 : f64} : " + activations(s.hidden) + vector + vector);
  }

  std::string binary(StringRef op, const std::string &x, const std::string &y, int64_t width, int64_t rows = 0) {
    return line(op.str() + " " + x + ", " + y + " : " + activations(width, rows));
  }

  std::string expand(const std::string &x, int64_t heads) {
    std::string sizes = std::to_string(s.batch) + ", " + std::to_string(tokens) + ", " + std::to_string(heads) + ", " +
                        std::to_string(s.headDim);
    return line("tensor.expand_shape " + x + " [[0], [1], [2, 3]] output_shape [" + sizes +
                "] : " + activations(heads * s.headDim) + " into " + headsType(heads));
  }

  std::string cut(const std::string &x, int64_t from, int64_t width, int64_t of) {
    std::string text;
    llvm::raw_string_ostream(text) << "tensor.extract_slice " << x << "[0, 0, " << from << "] [" << s.batch << ", "
                                   << tokens << ", " << width << "] [1, 1, 1] : " << activations(of) << " to "
                                   << activations(width);
    return line(text);
  }

  std::string rope(const std::string &x, int64_t heads) {
    auto angle = [](int64_t position, int64_t i) { return position / std::pow(10., i); };
    SmallVector<int64_t> shape{s.capacity, s.headDim / 2};
    std::string cos = line(weights.table("cos", shape, [&](int64_t p, int64_t i) { return std::cos(angle(p, i)); }));
    std::string sin = line(weights.table("sin", shape, [&](int64_t p, int64_t i) { return std::sin(angle(p, i)); }));
    return line("helix.rope " + x + ", " + cos + ", " + sin + ", %past" + (s.interleaved ? " {interleaved}" : "") +
                " : " + headsType(heads) + ", " + tensorType(shape, "f32") + ", " + lengthsType());
  }

  std::string attention(const std::string &x, int64_t layer, std::string &cache) {
    std::string n = std::to_string(layer), q, k, v;
    int64_t qWidth = s.heads * s.headDim, kvWidth = s.kvHeads * s.headDim;
    if (s.packed) {
      int64_t width = qWidth + 2 * kvWidth;
      std::string qkv = biased(x, "qkv" + n, s.hidden, width, s.sharpness);
      q = cut(qkv, 0, qWidth, width);
      k = cut(qkv, qWidth, kvWidth, width);
      v = cut(qkv, qWidth + kvWidth, kvWidth, width);
    } else {
      q = biased(x, "q" + n, s.hidden, qWidth, s.sharpness);
      k = biased(x, "k" + n, s.hidden, kvWidth, s.sharpness);
      v = biased(x, "v" + n, s.hidden, kvWidth, 1);
    }
    q = rowNorm(q, "q_row_norm" + n, s.heads);
    k = rowNorm(k, "k_row_norm" + n, s.kvHeads);
    q = rope(headNorm(expand(q, s.heads), "q_norm" + n, s.heads), s.heads);
    k = rope(headNorm(expand(k, s.kvHeads), "k_norm" + n, s.kvHeads), s.kvHeads);
    v = expand(v, s.kvHeads);
    cache = line("helix.kv_append " + k + ", " + v + ", %past, %q_len into " + cache + " : " + headsType(s.kvHeads) +
                 ", " + headsType(s.kvHeads) + ", " + lengthsType() + ", !kv");
    std::string perHead, attributes = "scale = " + std::to_string(1 / std::sqrt(s.headDim)) + " : f64";
    auto addPerHead = [&](bool has, const char *name, double scale, double mean) {
      if (has)
        perHead += std::string(" ") + name + " " + line(weights.op(name + n, {s.heads}, scale, mean)) + " : " +
                   tensorType({s.heads}, "f32");
    };
    addPerHead(s.slopes, "slopes", 0.1, 0.2);
    addPerHead(s.sinks, "sinks", 1, 0.5);
    if (s.softcap != 0)
      attributes += ", softcap = " + std::to_string(s.softcap) + " : f64";
    if (s.window != 0 && layer % 2 == 0)
      attributes += ", window = " + std::to_string(s.window) + " : i64";
    std::string a = line("helix.attention " + q + ", " + cache + ", %past, %q_len" + perHead + " {" + attributes +
                         "} : " + headsType(s.heads) + ", !kv, " + lengthsType() + " -> " + headsType(s.heads));
    a = line("tensor.collapse_shape " + a + " [[0], [1], [2, 3]] : " + headsType(s.heads) + " into " +
             activations(qWidth));
    return biased(a, "o" + n, qWidth, s.hidden, 1);
  }

  std::string feedForward(const std::string &x, int64_t layer) {
    std::string n = std::to_string(layer);
    if (s.decomposed) {
      std::string up = biased(x, "up" + n, s.hidden, s.ffn, 1);
      std::string active = activated(s.gated ? biased(x, "gate" + n, s.hidden, s.ffn, 1) : up);
      return biased(s.gated ? binary("arith.mulf", active, up, s.ffn) : active, "down" + n, s.ffn, s.hidden, 1);
    }
    std::string text = "helix.ffn " + x, operands = activations(s.hidden), biases, biasTypes;
    auto add = [&](const char *part, int64_t in, int64_t out, double scale) {
      text += std::string(" ") + part + " " + matrix(part + n, in, out, scale);
      operands += ", " + tensorType({in, out}, s.weight);
      if (s.bias) {
        biases += std::string(" ") + part + "_bias " + line(weights.op(part + n + "_bias", {out}, 1));
        biasTypes += ", " + tensorType({out}, "f32");
      }
    };
    if (s.gated)
      add("gate", s.hidden, s.ffn, 1);
    add("up", s.hidden, s.ffn, 1);
    add("down", s.ffn, s.hidden, 1 / std::sqrt(s.ffn));
    return line(text + biases + " {activation = #helix.activation<" + s.activation + ">} : (" + operands + biasTypes +
                ") -> " + activations(s.hidden));
  }

  void print(StringRef name) {
    std::string logitsType = activations(s.vocabulary, allLogits ? tokens : 1), caches, cacheTypes;
    for (int64_t layer = 0; layer < s.layers; ++layer) {
      caches += ", %kv" + std::to_string(layer) + ": !kv";
      cacheTypes += ", !kv";
    }
    std::string ids = tensorType({s.batch, tokens}, "i64");
    os << "  func.func @" << name << "(%ids: " << ids << ", %past: " << lengthsType() << ", %q_len: " << lengthsType()
       << caches << ") -> (" << logitsType << cacheTypes << ") attributes {helix.entry = #helix.entry<" << name
       << ", batch = " << s.batch << ", tokens = " << tokens << ", logits = " << (allLogits ? "all" : "last")
       << ">} {\n";

    std::string embed = line(weights.op("embed", {s.vocabulary, s.hidden}, 1, 0, s.weight));
    std::string x = line("helix.embedding %ids, " + embed + " : (" + ids + ", " +
                         tensorType({s.vocabulary, s.hidden}, s.weight) + ") -> " + activations(s.hidden));
    x = scaled(x, 1.5);
    if (s.learned) {
      SmallVector<int64_t> shape{s.capacity, s.hidden};
      std::string table = line(weights.op("positions", shape, 0.5));
      std::string rows = line("helix.position_embedding " + table + ", %past : " + tensorType(shape, "f32") + ", " +
                              lengthsType() + " -> " + activations(s.hidden));
      x = binary("arith.addf", x, rows, s.hidden);
    }
    std::string returned;
    for (int64_t layer = 0; layer < s.layers; ++layer) {
      std::string n = std::to_string(layer), cache = "%kv" + n;
      std::string a = attention(norm(x, "norm_a" + n), layer, cache);
      std::string before = x;
      x = binary("arith.addf", x, scaled(postNorm(a, "post_a" + n), 0.75), s.hidden);
      std::string f = feedForward(norm(s.parallel ? before : x, "norm_f" + n), layer);
      x = binary("arith.addf", x, scaled(postNorm(f, "post_f" + n), 0.75), s.hidden);
      returned += ", " + cache;
    }
    x = norm(x, "norm");
    // As an importer writes it: of all tokens' logits where they are more than a product.
    bool lastOfLogits = !allLogits && s.tail && s.decomposed;
    if (!allLogits && !lastOfLogits)
      x = lastToken(x, s.hidden);
    int64_t rows = allLogits || lastOfLogits ? tokens : 1;
    std::string logits;
    if (s.tied) {
      std::string w = line(weights.transposed("embed", {s.vocabulary, s.hidden}, s.weight));
      logits = line("helix.linear " + x + ", " + w + " : (" + activations(s.hidden, rows) + ", " +
                    tensorType({s.hidden, s.vocabulary}, s.weight) + ") -> " + activations(s.vocabulary, rows));
    } else {
      logits = linear(x, "head", s.hidden, s.vocabulary, 1, rows);
    }
    logits = tail(logits, rows);
    if (lastOfLogits)
      logits = lastToken(logits, s.vocabulary);
    os << "    return " << logits << returned << " : " << logitsType << cacheTypes << "\n  }\n";
  }
};

} // namespace

OwningOpRef<ModuleOp> makeProgram(MLIRContext &context, const ProgramShape &shape, std::mt19937_64 &random,
                                  StringRef directory) {
  WeightFile weights{random, {}, {}};
  std::string text;
  llvm::raw_string_ostream os(text);
  os << "!kv = !helix.kv<slots = " << shape.batch << ", heads = " << shape.kvHeads << ", key_dim = " << shape.headDim
     << ", value_dim = " << shape.headDim << ", element = f32, block = " << shape.block
     << ", kvp = 1, capacity = " << shape.capacity << ">\nmodule attributes {helix.vocabulary = " << shape.vocabulary
     << " : i64} {\n";
  EntryPrinter{shape, weights, os, /*tokens=*/1, /*allLogits=*/false}.print("decode");
  EntryPrinter{shape, weights, os, shape.chunk, shape.allLogits}.print("prefill");
  os << "}\n";

  SmallString<128> path(directory);
  llvm::sys::path::append(path, "weights");
  std::ofstream file(path.c_str(), std::ios::binary);
  file.write(reinterpret_cast<const char *>(weights.values.data()), weights.values.size() * sizeof(float));
  return parseSourceString<ModuleOp>(text, ParserConfig(&context));
}

double maxRelativeError(ModuleOp a, ModuleOp b, StringRef modelDir, uint64_t seed,
                        const InterpreterOptions &optionsOfB) {
  auto first = Interpreter::create(a, modelDir), second = Interpreter::create(b, modelDir, optionsOfB);
  if (failed(first) || failed(second))
    return -1;
  std::mt19937_64 random(seed);
  auto pick = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
  int64_t batch = (*first)->entry("decode").getBatch(), capacity = (*first)->capacity();
  std::vector<int64_t> past(batch, 0);
  double error = 0, largest = 0;
  for (int step = 0; step < 14; ++step) {
    StringRef name = step == 0 || pick(0, 2) == 0 ? "prefill" : "decode";
    EntryAttr entry = (*first)->entry(name);
    int64_t tokens = entry.getTokens();
    bool all = entry.getLogits() == LogitRows::All;
    std::vector<int64_t> ids(batch * tokens), qLen(batch);
    for (int64_t &id : ids)
      id = pick(0, (*first)->vocabulary() - 1);
    for (int64_t b = 0; b < batch; ++b) {
      // Now and then a slot goes back to an earlier length, or to none: another sequence.
      if (past[b] > 0 && pick(0, 7) == 0) {
        past[b] = pick(0, 1) ? 0 : pick(0, past[b]);
        (*first)->truncate(b, past[b]);
        (*second)->truncate(b, past[b]);
      }
      qLen[b] = pick(0, 4) == 0 ? 0 : std::min(pick(1, tokens), capacity - past[b]);
    }
    FailureOr<Tensor> x = (*first)->runEntry(name, ids, past, qLen), y = (*second)->runEntry(name, ids, past, qLen);
    if (failed(x) || failed(y) || x->shape != y->shape)
      return -1;
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t t = 0; t < (all ? qLen[b] : qLen[b] > 0); ++t)
        for (int64_t i = 0; i < x->width(); ++i) {
          double expected = x->at({b, t})[i], difference = std::abs(expected - y->at({b, t})[i]);
          error = std::max(error, std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference);
          largest = std::max(largest, std::abs(expected));
        }
      past[b] += qLen[b];
    }
  }
  return error / largest;
}

} // namespace helix::test
