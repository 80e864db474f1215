//===- HlxToText.cpp - An artifact as text ---------------------------------===//
#include "lib/Translate/HlxToText.h"
#include "lib/Artifact/Validate.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Format.h"

namespace helix {
namespace {

using namespace artifact;
using llvm::raw_ostream;

/// An element of a list that may be absent.
template <typename List> auto each(const List *list) {
  return list ? llvm::make_range(list->begin(), list->end())
              : llvm::make_range(typename List::const_iterator{nullptr, 0}, typename List::const_iterator{nullptr, 0});
}

struct Printer {
  const Artifact &artifact;
  raw_ostream &out;

  raw_ostream &quoted(const flatbuffers::String *text) {
    out << '"';
    if (text)
      out.write_escaped(text->c_str());
    return out << '"';
  }

  void weight(const Weight &weight) {
    out << "weight ";
    quoted(weight.name()) << " " << EnumNameWeightUse(weight.use()) << " " << EnumNameDType(weight.dtype()) << " [";
    llvm::interleaveComma(*weight.dims(), out, [&](const WeightDim *dim) { out << dim->local(); });
    out << (weight.transposed() ? "] transposed of file " : "] of file ") << weight.file() << ", bytes "
        << weight.offset() << " + " << weight.length() << ", " << EnumNameDType(weight.stored_dtype()) << " [";
    llvm::interleaveComma(*weight.dims(), out, [&](const WeightDim *dim) {
      out << dim->stored();
      if (dim->window_size() != dim->stored())
        out << " from " << dim->window_offset() << " take " << dim->window_size();
      if (dim->run() != 0)
        out << " in pieces of " << dim->run() << " every " << dim->stride();
      for (const Split *split : each(dim->splits())) {
        out << " by " << EnumNameAxis(split->axis()) << " in " << split->chunk();
        if (split->replicas() != 1)
          out << " on " << split->replicas() << " each";
      }
    });
    out << "]";
    if (const Quantization *quantization = weight.quantization())
      codes(*quantization);
    out << "\n";
  }

  void codes(const Quantization &quantization) {
    auto range = [&](const FileRange &range) {
      out << " of file " << range.file() << ", bytes " << range.offset() << " + " << range.length();
    };
    out << " codes of " << unsigned(quantization.bits()) << (quantization.is_signed() ? " signed bits" : " bits")
        << ", blocks of " << quantization.block() << ", scales " << EnumNameDType(quantization.scale_dtype());
    range(*quantization.scales());
    out << ", zero " << EnumNameZeroPoint(quantization.zero());
    if (quantization.zero_points())
      range(*quantization.zero_points());
    if (quantization.activations() != DType::F32)
      out << ", activations " << EnumNameDType(quantization.activations());
  }

  void operand(const Operand &operand) {
    out << EnumNameSpace(operand.space());
    if (operand.space() == Space::Device || operand.space() == Space::Comm)
      out << " " << operand.offset() << " + " << operand.bytes();
    else
      out << " " << operand.index();
  }

  void operands(const flatbuffers::Vector<flatbuffers::Offset<Operand>> *list) {
    out << "(";
    llvm::interleaveComma(each(list), out, [&](const Operand *it) { operand(*it); });
    out << ")";
  }

  template <typename T> void list(const flatbuffers::Vector<T> *numbers) {
    out << "[";
    llvm::interleaveComma(each(numbers), out, [&](T number) { out << number; });
    out << "]";
  }

  void work(const Command &command) {
    auto sizes = [&](std::initializer_list<std::pair<const char *, uint64_t>> list) {
      for (auto [name, value] : list)
        out << " " << name << " " << value;
    };
    switch (command.work_type()) {
    case Work::Embedding: {
      const auto &w = *command.work_as_Embedding();
      sizes({{"rows", w.rows()}, {"vocabulary", w.vocabulary()}, {"hidden", w.hidden()}});
      if (w.tied())
        out << " tied";
      return;
    }
    case Work::Linear: {
      const auto &w = *command.work_as_Linear();
      return sizes({{"rows", w.rows()}, {"k", w.k()}, {"n", w.n()}});
    }
    case Work::KvAppend: {
      const auto &w = *command.work_as_KvAppend();
      return sizes({{"batch", w.batch()},
                    {"tokens", w.tokens()},
                    {"heads", w.heads()},
                    {"key_dim", w.key_dim()},
                    {"value_dim", w.value_dim()}});
    }
    case Work::PartialAttention: {
      const auto &w = *command.work_as_PartialAttention();
      sizes({{"batch", w.batch()},
             {"tokens", w.tokens()},
             {"heads", w.heads()},
             {"padded_heads", w.padded_heads()},
             {"key_dim", w.key_dim()},
             {"value_dim", w.value_dim()}});
      Chunk batch = batchChunk(w), tokens = tokenChunk(w);
      if (batch.count != w.batch() || tokens.count != w.tokens())
        out << " of sequences " << batch.begin << " + " << batch.count << ", tokens " << tokens.begin << " + "
            << tokens.count;
      out << " scale " << llvm::format("%.9g", w.scale());
      if (w.softcap() != 0)
        out << " softcap " << llvm::format("%.9g", w.softcap());
      if (w.window() != 0)
        out << " window " << w.window();
      if (w.slopes())
        out << " slopes";
      return;
    }
    case Work::MergeAttention: {
      const auto &w = *command.work_as_MergeAttention();
      sizes({{"peers", w.peers()},
             {"batch", w.batch()},
             {"tokens", w.tokens()},
             {"heads", w.heads()},
             {"value_dim", w.value_dim()}});
      if (w.chunks()) {
        out << " along " << EnumNameChunkDim(w.along()) << " in ";
        list(w.chunks());
      }
      if (w.sinks())
        out << " sinks";
      return;
    }
    case Work::LastToken: {
      const auto &w = *command.work_as_LastToken();
      return sizes({{"batch", w.batch()}, {"tokens", w.tokens()}, {"hidden", w.hidden()}});
    }
    case Work::Generated:
      out << " ";
      quoted(artifact.kernels()->Get(command.work_as_Generated()->kernel())->symbol());
      return;
    case Work::AllToAll: {
      const auto &w = *command.work_as_AllToAll();
      out << " over " << EnumNameAxis(w.axis());
      return sizes({{"chunk", w.chunk()}});
    }
    case Work::AllReduce: {
      const auto &w = *command.work_as_AllReduce();
      out << " over " << EnumNameAxis(w.axis());
      return sizes({{"elements", w.elements()}});
    }
    case Work::Concat: {
      const auto &w = *command.work_as_Concat();
      sizes({{"rows", w.rows()}});
      out << " widths ";
      list(w.widths());
      return;
    }
    case Work::DenseAttention: {
      const auto &w = *command.work_as_DenseAttention();
      sizes({{"batch", w.batch()},
             {"heads", w.heads()},
             {"kv_heads", w.kv_heads()},
             {"tokens", w.tokens()},
             {"keys", w.keys()},
             {"key_dim", w.key_dim()},
             {"value_dim", w.value_dim()}});
      out << " scale " << llvm::format("%.9g", w.scale());
      if (w.softcap() != 0)
        out << " softcap " << llvm::format("%.9g", w.softcap());
      out << " offset " << w.offset() << " left " << w.left() << " right " << w.right();
      if (w.mask_shape()) {
        out << (w.truths() ? " truths " : " mask ");
        list(w.mask_shape());
      }
      out << (w.lengths() ? " lengths" : "") << " stage " << EnumNameScoreStage(w.stage());
      return;
    }
    case Work::Rotate: {
      const auto &w = *command.work_as_Rotate();
      sizes({{"batch", w.batch()},
             {"heads", w.heads()},
             {"tokens", w.tokens()},
             {"dim", w.dim()},
             {"half", w.half()},
             {"rows", w.rows()}});
      out << (w.positions() ? " positions" : "") << (w.interleaved() ? " interleaved" : "");
      return;
    }
    case Work::Scatter: {
      const auto &w = *command.work_as_Scatter();
      sizes({{"batch", w.batch()},
             {"outer", w.outer()},
             {"tokens", w.tokens()},
             {"capacity", w.capacity()},
             {"inner", w.inner()}});
      out << (w.indices() ? " indices" : "") << (w.circular() ? " circular" : "");
      return;
    }
    case Work::Transpose:
      out << " shape ";
      list(command.work_as_Transpose()->shape());
      out << " permutation ";
      return list(command.work_as_Transpose()->permutation());
    case Work::Record:
      return sizes({{"event", command.work_as_Record()->event()}});
    case Work::Wait:
      return sizes({{"event", command.work_as_Wait()->event()}});
    case Work::NONE:
      return;
    }
  }

  void cost(const Cost &cost) {
    auto terms = [&](const char *unit, double constant, double query, double cached, double both) {
      out << llvm::format(" %.0f", constant);
      if (query != 0)
        out << llvm::format(" + %.10g q", query);
      if (cached != 0)
        out << llvm::format(" + %.10g s", cached);
      if (both != 0)
        out << llvm::format(" + %.10g q s", both);
      out << " " << unit;
    };
    terms("bytes,", cost.bytes(), cost.bytes_per_query(), cost.bytes_per_cached(), cost.bytes_per_query_cached());
    terms("flops", cost.flops(), cost.flops_per_query(), cost.flops_per_cached(), cost.flops_per_query_cached());
  }

  void port(const char *side, const Port &port) {
    out << "  " << side << " ";
    quoted(port.name()) << " " << EnumNameDType(port.dtype()) << " ";
    list(port.dims());
    if (port.place()) {
      out << " at ";
      operand(*port.place());
    }
    out << "\n";
  }

  void entry(const Entry &entry) {
    out << "entry " << EnumNameEntryKind(entry.kind());
    if (entry.kind() != EntryKind::Stateless) {
      out << ": batch " << entry.batch() << ", tokens " << entry.tokens() << ", logits "
          << EnumNameLogitRows(entry.logits()) << " at ";
      operand(*entry.logits_operand());
    }
    out << ", device arena " << entry.device_bytes() << " bytes, comm arena " << entry.comm_bytes() << " bytes";
    if (entry.streams() != 1)
      out << ", " << entry.streams() << " streams, " << entry.events() << " events";
    out << "\n";
    for (const Port *it : each(entry.inputs()))
      port("input", *it);
    for (const Port *it : each(entry.outputs()))
      port("output", *it);
    for (const Command *command : each(entry.commands())) {
      out << "  " << EnumNameWork(command->work_type());
      work(*command);
      out << " ";
      operands(command->inputs());
      out << " -> ";
      operands(command->outputs());
      out << " stream " << command->stream() << " phase " << EnumNamePhase(command->phase()) << " source ";
      quoted(command->source());
      if (command->cost()) {
        out << " cost";
        cost(*command->cost());
      }
      out << "\n";
    }
  }

  void run() {
    out << "compiler ";
    quoted(artifact.compiler()) << "\n";
    const Mesh &mesh = *artifact.mesh();
    out << "mesh tpa " << mesh.tpa() << ", kvp " << mesh.kvp() << ", ep " << mesh.ep() << ", tpf " << mesh.tpf()
        << "\n";
    if (artifact.vocabulary() != 0)
      out << "vocabulary " << artifact.vocabulary() << ", of a rank " << artifact.local_vocabulary() << "\n";
    const KvLayout *kv = artifact.kv();
    if (kv)
      out << "kv slots " << kv->slots() << ", capacity " << kv->capacity() << ", block " << kv->block() << "\n";
    for (const KvLayer *layer : each(kv ? kv->layers() : nullptr)) {
      out << "  layer heads " << layer->heads() << ", key_dim " << layer->key_dim() << ", value_dim "
          << layer->value_dim() << ", " << EnumNameDType(layer->dtype());
      if (layer->scaling() == KvScaling::Tensor)
        out << ", scales " << llvm::format("%.9g", layer->key_scale()) << " of keys, "
            << llvm::format("%.9g", layer->value_scale()) << " of values";
      if (layer->scaling() == KvScaling::TokenHead)
        out << ", scales per token and head";
      out << "\n";
    }
    for (const WeightFile *file : each(artifact.files())) {
      out << "file ";
      quoted(file->path()) << " of " << file->bytes() << " bytes\n";
    }
    for (const Weight *it : each(artifact.weights()))
      weight(*it);
    for (const Image *image : each(artifact.images())) {
      out << "image ";
      quoted(image->triple()) << " ";
      quoted(image->features()) << " of " << image->code()->size() << " bytes, checksum "
                                << llvm::format_hex(image->checksum(), 18) << "\n";
    }
    for (const Kernel *kernel : each(artifact.kernels())) {
      out << "kernel ";
      quoted(kernel->symbol()) << " in image " << kernel->image() << ", groups " << kernel->groups() << ", buffers ";
      list(kernel->buffers());
      out << "\n";
    }
    for (const Entry *it : each(artifact.entries()))
      entry(*it);
  }
};

} // namespace

void printArtifact(const Artifact &artifact, raw_ostream &output) { Printer{artifact, output}.run(); }

} // namespace helix
