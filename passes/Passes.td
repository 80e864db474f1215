//===- Passes.td - The passes of the compiler, in pipeline order -----------===//
#ifndef HELIX_PASSES_TD
#define HELIX_PASSES_TD

include "mlir/Pass/PassBase.td"

def Raise : Pass<"helix-raise", "::mlir::ModuleOp"> {
  let summary = "Decomposed subgraphs to helix ops, at model level";
  let description = [{
    Recognised by structure, never by name:

    - a product with a packed weight whose result is only cut along its last dimension, or along those that this is split
      into, becomes one product per cut, each with a window of the stored weight, in pieces where heads lie interleaved;
    - a broadcast weight added to a product becomes its bias;
    - the last token is taken before the product and the elementwise ops that make the logits;
    - `(act(x gate) * (x up)) down` and `act(x up) down` become `helix.ffn`. The ops that make an activation are
      recognised by what they compute, not by how they are written: they are evaluated over their range.

    ```mlir
    %y = helix.linear %x, %w : (tensor<1x1x8xf32>, tensor<8x24xf32>) -> tensor<1x1x24xf32>
    %k = tensor.extract_slice %y[0, 0, 16] [1, 1, 8] [1, 1, 1] : tensor<1x1x24xf32> to tensor<1x1x8xf32>
    ```
    becomes
    ```mlir
    %wk = helix.weight "w" {..., window_offset = array<i64: 0, 16>, window_size = array<i64: 8, 8>} : tensor<8x8xf32>
    %k = helix.linear %x, %wk : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
    ```
  }];
  let dependentDialects = ["::helix::HelixDialect"];
  let statistics = [
    Statistic<"biases", "biases", "Number of sums that became a product's bias">,
    Statistic<"unpacked", "unpacked", "Number of products taken out of packed ones">,
    Statistic<"ffns", "ffns", "Number of feed-forward networks raised">
  ];
}

def VerifyModel : Pass<"helix-verify-model", "::mlir::ModuleOp"> {
  let summary = "Check that the module is at model level";
  let description = [{
    Entries have the signature (ids, past, q_len, caches) → (logits, caches); caches are used linearly, in order, once
    each; no op or type of the SPMD level is left; weights are whole; shapes are static. A stateless entry takes and
    returns tensors, each with a `helix.io`, and is the only one of its module.
  }];
}

def Shard : Pass<"helix-shard", "::mlir::ModuleOp"> {
  let summary = "Choose or check the mesh, and write how every value is sharded";
  let description = [{
    Sets `helix.mesh`, and writes `helix.sharding` on the results of ops whose values are split: from attention back
    through rope and the split into heads to the products that feed it (heads over tpa), what attention gives (heads over
    tpa, then kvp), and the logits (vocabulary over n). The FFN's columns (over tpf) and the embedding's rows (over n) are
    split inside their op. `helix-partition` cuts along the same pattern; the attributes say what it will do.

    A stateless entry is for one rank and stays as it is.

    Where an axis is 0 it is chosen: tpa is the largest divisor of N that divides the KV heads, with N = kvp * tpa; tpf
    is N / ep.

    Two baselines for comparison are made on request only. With `kv-replicate`, tpa may exceed the KV heads: tpa / KV
    heads neighbours hold the same KV head, and each an equal part of its query heads. With `ffn-ranks`, only the first
    ranks hold the FFN (`helix.ffn_ranks`); the others have an empty share of it.

    ```mlir
    %q = helix.linear %x, %wq {helix.sharding = #helix.sharding<attn, [[], [], ["tpa"]]>} : ...
    ```
  }];
  let options = [
    Option<"ranks", "ranks", "int64_t", "0", "Number of ranks N; 0: kvp * tpa">,
    Option<"kvp", "kvp", "int64_t", "0", "Ranks along the KV sequence; 0: N / tpa">,
    Option<"tpa", "tpa", "int64_t", "0", "Ranks along the heads; 0: chosen">,
    Option<"ep", "ep", "int64_t", "0", "Ranks along the experts; 0: 1">,
    Option<"tpf", "tpf", "int64_t", "0", "Ranks along the FFN columns; 0: N / ep">,
    Option<"kvReplicate", "kv-replicate", "bool", "false", "Let more tpa ranks than KV heads hold copies of them">,
    Option<"ffnRanks", "ffn-ranks", "int64_t", "0", "The first ranks, which alone hold the FFN; 0: all">
  ];
  let dependentDialects = ["::helix::HelixDialect"];
  let statistics = [Statistic<"sharded", "sharded", "Number of values split over ranks">];
}

def Partition : Pass<"helix-partition", "::mlir::ModuleOp"> {
  let summary = "From the whole model to what one rank computes";
  let description = [{
    Shapes become local, weights get the slice that a rank holds, and what each layer exchanges becomes explicit.
    Attention becomes partial attention on the rank's tokens, one all-to-all and the merge, in a `kvp` region together
    with the products that feed it; the output projection and the FFN become partial sums and all-reduces in a `tp`
    region. Heads, FFN columns and the vocabulary are padded where they do not divide. Where tpa exceeds the KV heads,
    each is on as many neighbours along tpa; with `helix.ffn_ranks`, the FFN is cut over the first ranks only.
    A stateless entry stays as it is.

    ```mlir
    %a = helix.attention %q, %cache, %past, %q_len {scale = 0.25 : f64}
        : tensor<1x1x4x16xf32>, !kv, tensor<1xi32> -> tensor<1x1x4x16xf32>
    ```
    becomes, for kvp = 2 and tpa = 2,
    ```mlir
    %a = helix.region kvp {
      %p = helix.partial_attention %q, %cache, %past, %q_len {scale = 0.25 : f64}
          : tensor<1x1x2x16xf32>, !kv_local, tensor<1xi32> -> !helix.partial<tensor<1x1x2x16xf32>, lse, [kvp]>
      %s = helix.all_to_all %p : ... -> !helix.stacked<kvp, tensor<2x1x1x1x17xf32>>
      %m = helix.merge_attention %s : ... -> tensor<1x1x1x16xf32>
      helix.yield %m : tensor<1x1x1x16xf32>
    } : tensor<1x1x1x16xf32>
    ```
  }];
  let dependentDialects = ["::helix::HelixDialect"];
  let statistics = [
    Statistic<"exchanges", "exchanges", "Number of all-to-alls inserted">,
    Statistic<"reductions", "reductions", "Number of all-reduces inserted">
  ];
}

def VerifySpmd : Pass<"helix-verify-spmd", "::mlir::ModuleOp"> {
  let summary = "Check that the module is at SPMD level";
  let description = [{
    The module has a mesh; no model-level attention is left; partial values are read by the op that completes them and
    by nothing else, along the axes of the mesh; every slice fits its mesh axis; caches have the mesh's kvp and are used
    linearly.
  }];
}

def Hopb : Pass<"helix-hopb", "::mlir::ModuleOp"> {
  let summary = "Cut attention and its all-to-all into chunks, so that one hides behind the other";
  let description = [{
    HOP-B of the Helix paper: while the partial attention of one chunk is exchanged, the next is computed. Chunks are
    runs of the batch; where sequences have several query tokens (prefill), runs of these. The append stays whole, before
    them. Chunks differ by at most one item, and there are no more of them than items: a batch of one decodes uncut.

    With `chunks = 0` the number is the one with the least time on `hardware` at `context` cached tokens, by the model
    that `helix-simulate` runs. The result is the same, bit for bit, whatever the number. What makes the two run at the
    same time is `helix-schedule`.

    ```mlir
    %p = helix.partial_attention %q, %cache, %past, %q_len {scale = 0.25 : f64}
        : tensor<4x1x2x16xf32>, !kv, tensor<4xi32> -> !helix.partial<tensor<4x1x2x16xf32>, lse, [kvp]>
    %s = helix.all_to_all %p : ... -> !helix.stacked<kvp, tensor<2x4x1x1x17xf32>>
    %m = helix.merge_attention %s : ... -> tensor<4x1x1x16xf32>
    ```
    becomes, in two chunks,
    ```mlir
    %p0 = helix.partial_attention %q, %cache, %past, %q_len {scale = 0.25 : f64, sequences = array<i64: 0, 2>} : ...
    %s0 = helix.all_to_all %p0 : ... -> !helix.stacked<kvp, tensor<2x2x1x1x17xf32>>
    %p1 = helix.partial_attention %q, %cache, %past, %q_len {scale = 0.25 : f64, sequences = array<i64: 2, 2>} : ...
    %s1 = helix.all_to_all %p1 : ... -> !helix.stacked<kvp, tensor<2x2x1x1x17xf32>>
    %m = helix.merge_attention %s0, %s1 : ... -> tensor<4x1x1x16xf32>
    ```
  }];
  let options = [
    Option<"chunks", "chunks", "int64_t", "1", "Chunks of an attention; 1: off; 0: chosen by cost">,
    Option<"hardware", "hardware", "std::string", "\"cpu\"", "What is chosen for: a system's name or a JSON file">,
    Option<"context", "context", "int64_t", "0", "Cached tokens per sequence to choose for; 0: the capacity">
  ];
  let dependentDialects = ["::helix::HelixDialect"];
  let statistics = [
    Statistic<"exchanges", "exchanges", "Number of all-to-alls that were cut">,
    Statistic<"pieces", "pieces", "Number of chunks that they were cut into">
  ];
}

def Flatten : Pass<"helix-flatten", "::mlir::ModuleOp"> {
  let summary = "Dissolve regions into a phase attribute";
  let description = [{
    ```mlir
    %y = helix.region tp {
      %s = helix.all_reduce %p : ...
      helix.yield %s : tensor<1x1x64xf32>
    } : tensor<1x1x64xf32>
    ```
    becomes
    ```mlir
    %s = helix.all_reduce %p {helix.phase = #helix.phase<tp>} : ...
    ```
  }];
  let dependentDialects = ["::helix::HelixDialect"];
  let statistics = [Statistic<"dissolved", "dissolved", "Number of regions dissolved">];
}

def Fuse : Pass<"helix-fuse", "::mlir::ModuleOp"> {
  let summary = "Outline elementwise, norm and rope clusters as kernels";
  let description = [{
    Takes `helix.ffn` apart into its products and the gate, then outlines every maximal cluster of ops that work row by
    row (`helix.rms_norm`, `helix.rope`, elementwise `arith` and `math`) into a private function with the attribute
    `helix.kernel`, called from the entries. Equal kernels are shared.

    ```mlir
    %h = arith.addf %x, %y : tensor<1x1x64xf32>
    %n = helix.rms_norm %h, %scale {epsilon = 1.0e-05 : f64} : tensor<1x1x64xf32>, tensor<64xf32>
    ```
    becomes
    ```mlir
    %hn:2 = call @kernel_add_rms_norm(%x, %y, %scale) : ...
    ```
  }];
  let dependentDialects = ["::helix::HelixDialect", "::mlir::func::FuncDialect", "::mlir::math::MathDialect"];
  let statistics = [
    Statistic<"outlined", "outlined", "Number of clusters outlined">,
    Statistic<"kernels", "kernels", "Number of distinct kernels">
  ];
}

def SplitReduce : Pass<"helix-split-reduce", "::mlir::ModuleOp"> {
  let summary = "Cut products and the all-reduce behind them into columns, so that one hides behind the other";
  let description = [{
    Where a product gives a partial sum (the output projection, the FFN's last product), the columns of one chunk are
    reduced while those of the next are computed. A chunk is a window of the weight, so the weight is still read once.
    Each element is summed as before, in the same order: the result is the same, bit for bit.

    With `chunks = 0` the number is chosen, for each product, by its time on `hardware`; the entry with the fewest rows,
    decode, chooses for all, so that they share the weight.

    ```mlir
    %p = helix.linear %x, %w : (tensor<1x1x32xf32>, tensor<32x128xf32>) -> !helix.partial<tensor<1x1x128xf32>, sum, [n]>
    %y = helix.all_reduce %p : ... -> tensor<1x1x128xf32>
    ```
    becomes, in two chunks,
    ```mlir
    %p0 = helix.linear %x, %w0 : ... -> !helix.partial<tensor<1x1x64xf32>, sum, [n]>
    %y0 = helix.all_reduce %p0 : ... -> tensor<1x1x64xf32>
    %p1 = helix.linear %x, %w1 : ... -> !helix.partial<tensor<1x1x64xf32>, sum, [n]>
    %y1 = helix.all_reduce %p1 : ... -> tensor<1x1x64xf32>
    %y = tensor.concat dim(2) %y0, %y1 : (tensor<1x1x64xf32>, tensor<1x1x64xf32>) -> tensor<1x1x128xf32>
    ```
  }];
  let options = [
    Option<"chunks", "chunks", "int64_t", "1", "Chunks of a product; 1: off; 0: chosen by cost">,
    Option<"hardware", "hardware", "std::string", "\"cpu\"", "What is chosen for: a system's name or a JSON file">
  ];
  let dependentDialects = ["::helix::HelixDialect", "::mlir::tensor::TensorDialect"];
  let statistics = [
    Statistic<"products", "products", "Number of products that were cut">,
    Statistic<"pieces", "pieces", "Number of chunks that they were cut into">
  ];
}

def Codegen : Pass<"helix-codegen", "::mlir::ModuleOp"> {
  let summary = "From the helix dialect to the plan dialect, with native code for the kernels";
  let description = [{
    Compiles all kernels of the module into one image for the target. Entries become `plan.entry`: one command per op,
    weights shared between entries under one symbol per slice and use. Reshapes change no bytes and vanish, as do
    collectives over one rank.

    ```mlir
    %p = helix.linear %x, %w : (tensor<1x1x64xf32>, tensor<64x32xf32>) -> !helix.partial<tensor<1x1x32xf32>, sum, [n]>
    %s = helix.all_reduce %p : !helix.partial<tensor<1x1x32xf32>, sum, [n]> -> tensor<1x1x32xf32>
    ```
    becomes
    ```mlir
    %w = plan.get_weight @w : tensor<64x32xf32>
    %p = plan.linear %x, %w {rows = 1 : i64, k = 64 : i64, n = 32 : i64} : ... -> tensor<1x1x32xf32>
    %s = plan.all_reduce %p over <n> {peers = 4 : i64} : (tensor<1x1x32xf32>) -> tensor<1x1x32xf32>
    ```
  }];
  let options = [
    Option<"target", "target", "std::string", "\"cpu\"", "What to generate code for: cpu or cuda">,
    Option<"features", "cpu-features", "std::string", "\"x86-64-v3\"", "x86-64-v3 or x86-64-v4">,
    Option<"archs", "cuda-arch", "std::string", "\"sm_80,sm_90a,sm_100\"",
           "CUDA architectures to assemble for, from sm_80, sm_90a and sm_100">
  ];
  let dependentDialects = ["::helix::plan::PlanDialect"];
  let statistics = [
    Statistic<"compiledKernels", "kernels", "Number of kernels compiled">,
    Statistic<"imageBytes", "image-bytes", "Bytes of native code">
  ];
}

def Schedule : Pass<"helix-schedule", "::mlir::ModuleOp"> {
  let summary = "Put every command on a stream, in the order of issue, with events between streams";
  let description = [{
    Without `comm-stream` all commands go to stream 0, in the order of the program, once that is known to be a legal
    order: no command reads or appends to a version of a cache behind the append that changes it.

    With it, collectives go to stream 1 and run beside what computes, but for those beside which nothing would run: these
    stay on stream 0, since going over and back takes time. Commands are issued in the order of a list
    schedule: each stream takes, whenever it is free, the command that can start first on `hardware` at `context` cached
    tokens, and of those the one with the longest chain of commands behind it; so whatever does not need a collective
    under way moves beside it. Where a command needs what the other stream computes, a `plan.record` behind that and a
    `plan.wait` before it say so, unless an earlier pair does.

    ```mlir
    %p = plan.partial_attention ... {...} : ...
    %s = plan.all_to_all %p over <kvp> {peers = 2 : i64} : ...
    ```
    becomes, with `comm-stream`,
    ```mlir
    %p = plan.partial_attention ... {stream = 0 : i64, ...} : ...
    plan.record {event = 0 : i64, stream = 0 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    %s = plan.all_to_all %p over <kvp> {peers = 2 : i64, stream = 1 : i64} : ...
    ```
  }];
  let options = [
    Option<"commStream", "comm-stream", "bool", "false", "Give collectives a stream of their own">,
    Option<"hardware", "hardware", "std::string", "\"cpu\"", "What to schedule for: a system's name or a JSON file">,
    Option<"context", "context", "int64_t", "0", "Cached tokens per sequence to schedule for; 0: the capacity">
  ];
  let dependentDialects = ["::helix::plan::PlanDialect"];
  let statistics = [
    Statistic<"scheduled", "scheduled", "Number of commands">,
    Statistic<"events", "events", "Number of events">
  ];
}

def Place : Pass<"helix-place", "::mlir::ModuleOp"> {
  let summary = "Give every value an offset in the device or the comm arena";
  let description = [{
    What collectives read or write lives in the comm arena, all else in the device arena. Values whose lifetimes do not
    meet share bytes; lifetimes go by what streams and events say is done (passes/Order.h), and a comm value lives until
    its peers are known to be done with it (passes/Lifetimes.h). Largest values first, each at the lowest offset that is
    free, in multiples of 64 bytes.

    ```mlir
    %y = plan.linear %x, %w {places = [#plan.place<comm, 128>], ...} : ...
    ```
  }];
  let dependentDialects = ["::helix::plan::PlanDialect"];
  let statistics = [
    Statistic<"valueBytes", "value-bytes", "Bytes of all values">,
    Statistic<"arenaBytes", "arena-bytes", "Bytes of the arenas">
  ];
}

def VerifyPlan : Pass<"helix-verify-plan", "::mlir::ModuleOp"> {
  let summary = "Prove that the module is a complete plan, whatever the timing of its streams";
  let description = [{
    Every command is on a stream; every event is recorded once, before any wait for it, so that waits cannot form a
    cycle; every command is behind those that make what it reads, by streams and events alone, and every append behind
    all that use the cache it changes; any two collectives have an order, the same on every rank; every value has a place
    in the arena where it belongs, inside it; no two values whose lifetimes meet share bytes.
  }];
}

#endif // HELIX_PASSES_TD
