"""Rules about a solver's own fields, and about the files that it and its nets name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from prototxt_gen import layers
from prototxt_gen.checks.problem import ERROR, WARNING, Problem, SolverFile, of_file, of_layer
from prototxt_gen.checks.prototxt_rules import verdict, walk
from prototxt_gen.common.errors import nearest
from prototxt_gen.ir import Net
from prototxt_gen.schema.caffe_proto import TransformationParameter

POLICIES = {
    "fixed": (),
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma", "stepvalue"),
    "poly": ("power", "max_iter"),
    "sigmoid": ("gamma", "stepsize"),
}
"""Each lr_policy with the fields it reads. Source: src/caffe/solvers/sgd_solver.cpp SGDSolver::GetLearningRate."""
TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
_WITHOUT_MOMENTUM = ("AdaGrad", "RMSProp")
_TRAIN_NETS = ("net", "net_param", "train_net", "train_net_param")


def misfit_fields(file: SolverFile) -> Iterator[Problem]:
    for path, extra, known in walk(file.solver.params):
        yield of_file(*verdict(extra, path, known), extra.line)


def one_train_net(file: SolverFile) -> Iterator[Problem]:
    """Source: src/caffe/solver.cpp Solver::InitTrainNet."""
    inline = {field.name for field in file.solver.inline}
    given = [name for name in _TRAIN_NETS if name in inline or (name.endswith("net") and file.has(name))]
    if len(given) != 1:
        what = f"it gives {len(given)} train nets ({', '.join(given)})" if given else "it gives no train net"
        yield file.problem(ERROR, "train-net", given[0] if given else "", f"{what}; it takes one of net and train_net")


def testing(file: SolverFile) -> Iterator[Problem]:
    """Source: src/caffe/solver.cpp Solver::InitTestNets."""
    own = len(file.get("test_net")) + sum(field.name == "test_net_param" for field in file.solver.inline)
    shared = file.has("net") or any(field.name == "net_param" for field in file.solver.inline)
    iters, states = len(file.get("test_iter")), len(file.get("test_state"))
    if iters < own or (iters > own and not shared):
        yield file.problem(ERROR, "test-nets", "test_iter", f"{iters} test_iter for {own} test nets; each takes one")
    if states and states != iters:
        yield file.problem(ERROR, "test-nets", "test_state", f"{states} test_state for {iters} test_iter")
    if iters and file.get("test_interval") < 1:
        yield file.problem(ERROR, "test-interval", "test_iter", "test_iter needs a test_interval of at least 1")
    if file.has("test_interval") and not iters:
        yield file.problem(WARNING, "test-interval", "test_interval", "without test_iter nothing is ever tested")
    if any(count < 1 for count in file.get("test_iter")):
        yield file.problem(WARNING, "test-interval", "test_iter", "test_iter 0 tests nothing")


def learning_rate(file: SolverFile) -> Iterator[Problem]:
    policy = file.get("lr_policy")
    if not policy:
        known = ", ".join(POLICIES)
        yield file.problem(ERROR, "lr-policy", "", f"it has no lr_policy; there are {known}")
    elif policy not in POLICIES:
        hint = nearest(policy, POLICIES) or f"; there are {', '.join(POLICIES)}"
        yield file.problem(ERROR, "lr-policy", "lr_policy", f"lr_policy {policy!r} is not known{hint}")
    for name in POLICIES.get(policy, ()):
        if not file.has(name):
            message = f"lr_policy {policy!r} needs {name}, which is not set"
            yield file.problem(ERROR if name == "stepsize" else WARNING, "lr-policy", "lr_policy", message)
    if not file.get("base_lr") > 0:
        yield file.problem(WARNING, "base-lr", "base_lr", f"base_lr is {file.get('base_lr'):g}; nothing is learned")


def steps(file: SolverFile) -> Iterator[Problem]:
    values = file.get("stepvalue")
    if any(later <= earlier for earlier, later in pairwise(values)):
        yield file.problem(WARNING, "steps", "stepvalue", f"stepvalue does not rise: {', '.join(map(str, values))}")
    if values and file.get("lr_policy") != "multistep":
        message = f"stepvalue is for lr_policy 'multistep'; {file.get('lr_policy')!r} ignores it"
        yield file.problem(WARNING, "steps", "stepvalue", message)
    if values and 0 < file.get("max_iter") <= values[-1]:
        message = f"the last stepvalue, {values[-1]}, is not reached: max_iter is {file.get('max_iter')}"
        yield file.problem(WARNING, "steps", "stepvalue", message)


def length(file: SolverFile) -> Iterator[Problem]:
    if file.get("max_iter") < 1:
        yield file.problem(WARNING, "max-iter", "max_iter", "max_iter is not set, so it stops before it begins")
    for name in ("iter_size", "average_loss"):
        if file.get(name) < 1:
            yield file.problem(ERROR, "count", name, f"{name} must be at least 1")


def kind(file: SolverFile) -> Iterator[Problem]:
    """Source: src/caffe/solver.cpp, include/caffe/sgd_solvers.hpp, src/caffe/util/upgrade_proto.cpp."""
    type_ = file.solver.type
    if file.has("type") and file.has("solver_type"):
        yield file.problem(ERROR, "solver-type", "solver_type", "it has both type and, its old form, solver_type")
    if type_ not in TYPES:
        hint = nearest(type_, TYPES) or f"; there are {', '.join(TYPES)}"
        yield file.problem(ERROR, "solver-type", "type", f"type {type_!r} is not known{hint}")
    if type_ in _WITHOUT_MOMENTUM and file.get("momentum"):
        yield file.problem(ERROR, "momentum", "momentum", f"{type_} takes no momentum; Caffe refuses it")
    if type_ == "RMSProp" and not 0 <= file.get("rms_decay") < 1:
        yield file.problem(ERROR, "rms-decay", "rms_decay", "rms_decay must be at least 0 and below 1")
    if file.get("regularization_type") not in ("L1", "L2"):
        message = f"regularization_type is L1 or L2, not {file.get('regularization_type')!r}"
        yield file.problem(ERROR, "regularization", "regularization_type", message)


def missing_files(file: SolverFile) -> Iterator[Problem]:
    """Files are looked for where Caffe does, from the working folder, and beside the solver."""
    named = [("weights", path) for text in file.get("weights") for path in text.split(",")]
    if file.get("snapshot") and file.has("snapshot_prefix"):
        named.append(("snapshot_prefix", str(Path(file.get("snapshot_prefix")).parent)))
    for name, path in named:
        if not exists(file, path.strip()):
            what = "the folder of its snapshots" if name == "snapshot_prefix" else name
            yield file.problem(WARNING, "missing-file", name, f"{what}, {path.strip()!r}, is not there")


def missing_data(file: SolverFile, net: Net) -> Iterator[Problem]:
    """Sources of data and mean files that the nets name."""
    for layer in net.layers:
        layer_type = layers.find_layer_type(layer.type)
        transform = layer.get(TransformationParameter)
        named = [("mean_file", transform.mean_file)] if transform.has("mean_file") else []
        for own in map(layer.get, layer_type.params if layer_type is not None and layer_type.data else ()):
            if "source" in own.fields and own.has("source"):
                named.append(("source", str(dict(own.set_fields())["source"])))
        for name, path in named:
            if not exists(file, path):
                yield of_layer(WARNING, "missing-file", layer, f"{name} {path!r} is not there")


def exists(file: SolverFile, name: str) -> bool:
    try:
        return file.solver.locate(name).exists()
    except (OSError, ValueError):
        return False  # too long for a path, or with a NUL byte


SOLVER_RULES = (misfit_fields, one_train_net, testing, learning_rate, steps, length, kind, missing_files)
