"""The script of the self-test, run by the Python for which Caffe was installed and without prototxt-gen.

It is passed to that Python on standard input, in an empty folder. It prints the number of layer types; an error is a
traceback.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import caffe
import numpy as np

SOLVERS = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 2 dim: 2 } } }\n'


def net(text: str, phase: int = caffe.TEST) -> Any:
    """Return the Caffe net of a prototxt text."""
    Path("net.prototxt").write_text(text, encoding="utf-8")
    return caffe.Net("net.prototxt", phase)


def check_interp() -> None:
    """Check that Interp enlarges 2 x 2 to 3 x 3 with the corners unchanged."""
    made = net(INPUT + 'layer { name: "y" type: "Interp" bottom: "x" top: "y" interp_param { zoom_factor: 2 } }')
    made.blobs["x"].data[...] = [[[[0, 1], [2, 3]]]]
    expected = [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]]
    np.testing.assert_allclose(made.forward()["y"][0, 0], expected, rtol=1e-6)


def check_bn() -> None:
    """Check that BN in training uses batch statistics, moves its statistics by 0.1, and has blobs of 1 x C x 1 x 1."""
    made = net(
        INPUT + 'layer { name: "y" type: "BN" bottom: "x" top: "y" bn_param { slope_filler { value: 1 } } }',
        caffe.TRAIN,
    )
    made.blobs["x"].data[...] = [[[[0, 1], [2, 3]]]]
    top = made.forward()["y"]
    inverse_std = 1 / np.sqrt(1.25 + 1e-5)
    np.testing.assert_allclose(top.ravel(), (np.arange(4) - 1.5) * inverse_std, rtol=1e-5)
    expected = [1, 0, 0.15, 0.9 + 0.1 * inverse_std]
    np.testing.assert_allclose([blob.data.item() for blob in made.params["y"]], expected, rtol=1e-5)
    assert made.params["y"][0].data.shape == (1, 1, 1, 1)


def check_solvers() -> None:
    """Check that each of the six solvers updates weights and writes a snapshot that can be loaded."""
    data = "dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 } data_filler { type: 'gaussian' } }"
    Path("train.prototxt").write_text(
        f'layer {{ name: "d" type: "DummyData" top: "x" top: "t" {data} }}\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 '
        'weight_filler { type: "xavier" } } }\n'
        'layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "l" }'
    )
    for kind in SOLVERS:
        momentum = 0.0 if kind in ("AdaGrad", "RMSProp") else 0.9
        Path("solver.prototxt").write_text(
            f'net: "train.prototxt" type: "{kind}" base_lr: 0.01 lr_policy: "fixed" momentum: {momentum} max_iter: 9 '
            'random_seed: 1 snapshot_prefix: "s" snapshot_format: HDF5'
        )
        solver = caffe.get_solver("solver.prototxt")
        before = solver.net.params["ip"][0].data.copy()
        solver.step(3)
        after = solver.net.params["ip"][0].data
        assert np.isfinite(after).all() and not np.array_equal(before, after), kind
        solver.snapshot()
        solver.net.load_hdf5("s_iter_3.caffemodel.h5")
        np.testing.assert_array_equal(solver.net.params["ip"][0].data, after)


class Doubler(caffe.Layer):  # type: ignore[misc, unused-ignore]
    """A Python layer whose top is twice its bottom."""

    def setup(self, bottom: Any, top: Any) -> None:
        """Do nothing."""

    def reshape(self, bottom: Any, top: Any) -> None:
        """Reshape the top to the bottom's shape."""
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        """Compute the top."""
        top[0].data[...] = 2 * bottom[0].data


def check_python_layer() -> None:
    """Check that a Python class can be a layer."""
    module = types.ModuleType("selfcheck_layers")
    module.__dict__["Doubler"] = Doubler
    sys.modules[module.__name__] = module
    where = 'python_param { module: "selfcheck_layers" layer: "Doubler" }'
    made = net(INPUT + f'layer {{ name: "y" type: "Python" bottom: "x" top: "y" {where} }}')
    made.blobs["x"].data[...] = 3
    assert (made.forward()["y"] == 6).all()


def check_faults() -> None:
    """Check that a failed CHECK is an exception that names the layer, and that Data layers open LMDB."""
    where = 'data_param { source: "nowhere" backend: LMDB batch_size: 1 }'
    try:
        net(f'layer {{ name: "data" type: "Data" top: "data" {where} }}')
    except caffe.CheckError as error:
        assert "'data' (Data)" in str(error) and "lmdb" in str(error), error
    else:
        raise AssertionError("an LMDB that is not there was opened")


if __name__ == "__main__":
    caffe.init_log(2)
    check_interp()
    check_bn()
    check_solvers()
    check_python_layer()
    check_faults()
    print(len(caffe.layer_type_list()))
