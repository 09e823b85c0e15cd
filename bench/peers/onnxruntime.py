"""ONNX Runtime: a graph of Gemm and Relu, all optimizations; inference alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from trainstep.bench.tasks import Array, PredictProblem, PredictTask


def make_model(problem: PredictProblem) -> bytes:
    """Write the network as ONNX."""
    nodes, constants, name = [], [], "x"
    last = len(problem.weights) - 1
    for i, (w, b) in enumerate(zip(problem.weights, problem.biases, strict=True)):
        constants += [numpy_helper.from_array(w, f"w{i}"), numpy_helper.from_array(b, f"b{i}")]
        to = "y" if i == last else f"z{i}"
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [to]))
        if i < last:
            nodes.append(helper.make_node("Relu", [to], [f"h{i}"]))
        name = f"h{i}"
    rows, sizes = len(problem.x), problem.sizes
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [rows, s]) for n, s in (("x", sizes[0]), ("y", sizes[-1]))]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


class OnnxPredict(PredictTask):
    """`run` on an array, or on memory that is bound once."""

    variants = ("run", "io_binding")

    def __init__(self, problem: PredictProblem, variant: str, threads: int) -> None:
        """Set the threads and make the session."""
        super().__init__(problem, variant, threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(make_model(problem), options, providers=["CPUExecutionProvider"])
        self.binding = None
        if variant == "io_binding":
            self.result = np.empty((len(problem.x), problem.sizes[-1]), np.float32)
            self.binding = self.session.io_binding()
            for bind, name, array in (("bind_input", "x", problem.x), ("bind_output", "y", self.result)):
                getattr(self.binding, bind)(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def step(self) -> Array:
        """Ask the network."""
        if self.binding is None:
            return self.session.run(None, {"x": self.problem.x})[0]
        self.session.run_with_iobinding(self.binding)
        return self.result

    @staticmethod
    def versions() -> dict[str, str]:
        """Return the version."""
        return {"onnxruntime": onnxruntime.__version__}


TASKS = {"predict": OnnxPredict}
