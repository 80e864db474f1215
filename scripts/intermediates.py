"""Writes what every node of an ONNX decoder computes, by ONNX Runtime: the reference of `helix-compile --bisect`.

    build/venv/bin/python scripts/intermediates.py model.onnx --prompt-ids 1,2,3,4 -o ref.npz
    helix-compile model.onnx --bisect ref.npz --kvp 2 --tpa 2

The .npz has `input_ids` [1, tokens] and each value of floating-point numbers that a node of the graph makes, by its name
there, of one pass over the prompt with empty caches. Values inside of functions, loops and branches have no names outside
and are left out.
"""

import argparse
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "test" / "models"))
import drive  # noqa: E402


def intermediates(path, ids, head_dim=None):
    """The values [name: array] of one pass over `ids`, and the graph's inputs among them."""
    model = onnx.load(path, load_external_data=False)
    known = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in known]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    # Beside the model, where external data is looked for.
    copy = pathlib.Path(path).with_suffix(".intermediates.onnx")
    try:
        onnx.save(model, copy)
        session = onnxruntime.InferenceSession(str(copy), options, providers=["CPUExecutionProvider"])
    finally:
        copy.unlink(missing_ok=True)
    ids = np.asarray(ids, np.int64)[None]
    tokens = ids.shape[1]
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones((1, tokens), np.int64),
        "position_ids": np.arange(tokens)[None],
        "write_indices": np.array([0]),
        "nonpad_kv_seqlen": np.array([tokens]),
        **drive.empty_caches(session, head_dim),
    }
    outputs = [output.name for output in session.get_outputs()]
    values = session.run(outputs, {given.name: feeds[given.name] for given in session.get_inputs()})
    arrays = {name: value for name, value in zip(outputs, values) if np.issubdtype(np.asarray(value).dtype, np.floating)}
    return {"input_ids": ids, **arrays}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the .onnx file")
    parser.add_argument("--prompt-ids", required=True, help="token ids, separated by commas")
    parser.add_argument("--head-dim", type=int, help="width of a head, if the caches' shapes do not say")
    parser.add_argument("-o", required=True, metavar="ref.npz", dest="output")
    arguments = parser.parse_args()
    ids = [int(token) for token in arguments.prompt_ids.split(",")]
    arrays = intermediates(arguments.model, ids, arguments.head_dim)
    np.savez(arguments.output, **arrays)
    print(f"{arguments.output}: {len(arrays) - 1} values of one pass over {len(ids)} tokens")


if __name__ == "__main__":
    main()
