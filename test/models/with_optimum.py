"""Exports with optimum-onnx, which traces a transformers 4 model with the TorchScript exporter; weights stay inline."""

import pathlib
import tempfile

from optimum.exporters.onnx import main_export

PACKAGES = ["optimum-onnx", "optimum", "torch", "transformers"]


def export(model, folder):
    """Writes model.onnx."""
    with tempfile.TemporaryDirectory() as checkpoint, tempfile.TemporaryDirectory() as output:
        model.save_pretrained(checkpoint)
        main_export(
            checkpoint, output, task="text-generation-with-past", library_name="transformers", do_validation=False
        )
        (folder / "model.onnx").write_bytes(pathlib.Path(output, "model.onnx").read_bytes())
