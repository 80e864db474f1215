"""lit configuration: .mlir and .test files, run with the tools of one build directory."""

import os
import shutil

import lit.formats

config.name = "Helix"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["e2e", "models", "unit", "Inputs"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(config.helix_binary_dir, "test")

config.environment["PATH"] = os.pathsep.join(
    [os.path.join(config.helix_binary_dir, "bin"), config.llvm_tools_dir, os.environ["PATH"]]
)
# One way to call FileCheck; every variable is a test's own.
config.environment["FILECHECK_OPTS"] = "-enable-var-scope"

venv = os.path.join(config.helix_source_dir, "build", "venv", "bin", "python")
config.substitutions.append(("%python", os.environ.get("HELIX_PYTHON", venv)))
config.substitutions.append(("%models", os.path.join(config.helix_source_dir, "test", "models")))

# Tests of what the CUDA toolkit makes of generated code.
if shutil.which("ptxas", path=os.environ["PATH"] + os.pathsep + "/usr/local/cuda/bin"):
    config.available_features.add("ptxas")
