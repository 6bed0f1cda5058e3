"""Rules for the fields of a solver, and for the files that the solver and its nets name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from prototxt_gen import layers
from prototxt_gen.checks.problem import ERROR, WARNING, Problem, SolverFile, file_problem, layer_problem
from prototxt_gen.checks.prototxt_rules import misfit_problem, misfits
from prototxt_gen.common.errors import nearest
from prototxt_gen.ir import Net
from prototxt_gen.schema.caffe_proto import TransformationParameter

LR_POLICIES = {
    "fixed": (),
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma", "stepvalue"),
    "poly": ("power", "max_iter"),
    "sigmoid": ("gamma", "stepsize"),
}
"""The fields that each lr_policy reads. Source: src/caffe/solvers/sgd_solver.cpp SGDSolver::GetLearningRate."""
SOLVER_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
_WITHOUT_MOMENTUM = ("AdaGrad", "RMSProp")
_TRAIN_NETS = ("net", "net_param", "train_net", "train_net_param")


def check_fields(file: SolverFile) -> Iterator[Problem]:
    for path, extra, fields in misfits(file.solver.params):
        yield file_problem(*misfit_problem(extra, path, fields), extra.line)


def check_train_net(file: SolverFile) -> Iterator[Problem]:
    """Yield a problem unless there is exactly one train net. Source: src/caffe/solver.cpp Solver::InitTrainNet."""
    inline = {field.name for field in file.solver.inline_nets}
    names = [name for name in _TRAIN_NETS if name in inline or (name.endswith("net") and file.has(name))]
    if len(names) != 1:
        count = f"it has {len(names)} train nets ({', '.join(names)})" if names else "it has no train net"
        message = f"{count}; it needs exactly one net or train_net"
        yield file.problem(ERROR, "train-net", names[0] if names else "", message)


def check_test_nets(file: SolverFile) -> Iterator[Problem]:
    """Yield problems with test nets, test_iter and test_interval. Source: src/caffe/solver.cpp Solver::InitTestNets."""
    count = len(file.get("test_net")) + sum(field.name == "test_net_param" for field in file.solver.inline_nets)
    shared = file.has("net") or any(field.name == "net_param" for field in file.solver.inline_nets)
    iters, states = len(file.get("test_iter")), len(file.get("test_state"))
    if iters < count or (iters > count and not shared):
        message = f"{iters} test_iter for {count} test nets; each test net needs one test_iter"
        yield file.problem(ERROR, "test-nets", "test_iter", message)
    if states and states != iters:
        message = f"{states} test_state for {iters} test_iter; the numbers must be equal"
        yield file.problem(ERROR, "test-nets", "test_state", message)
    if iters and file.get("test_interval") < 1:
        yield file.problem(ERROR, "test-interval", "test_iter", "test_iter needs a test_interval of at least 1")
    if file.has("test_interval") and not iters:
        message = "test_interval is set, but test_iter is not, so nothing is tested"
        yield file.problem(WARNING, "test-interval", "test_interval", message)
    if any(count < 1 for count in file.get("test_iter")):
        yield file.problem(WARNING, "test-interval", "test_iter", "test_iter is 0, so nothing is tested")


def check_learning_rate(file: SolverFile) -> Iterator[Problem]:
    policy = file.get("lr_policy")
    if not policy:
        known = ", ".join(LR_POLICIES)
        yield file.problem(ERROR, "lr-policy", "", f"lr_policy is not set; possible values are {known}")
    elif policy not in LR_POLICIES:
        hint = nearest(policy, LR_POLICIES)
        severity, code = (ERROR, "lr-policy") if hint else (WARNING, "unknown-form")
        hint = hint or f", which only a fork may have; possible values are {', '.join(LR_POLICIES)}"
        yield file.problem(severity, code, "lr_policy", f"unknown lr_policy {policy!r}{hint}")
    for name in LR_POLICIES.get(policy, ()):
        if not file.has(name):
            message = f"lr_policy {policy!r} needs {name}, which is not set"
            yield file.problem(ERROR if name == "stepsize" else WARNING, "lr-policy", "lr_policy", message)
    if not file.get("base_lr") > 0:
        yield file.problem(WARNING, "base-lr", "base_lr", f"base_lr is {file.get('base_lr'):g}, so nothing is learned")


def check_stepvalues(file: SolverFile) -> Iterator[Problem]:
    values = file.get("stepvalue")
    if any(later <= earlier for earlier, later in pairwise(values)):
        message = f"the values of stepvalue do not increase: {', '.join(map(str, values))}"
        yield file.problem(WARNING, "steps", "stepvalue", message)
    if values and file.get("lr_policy") != "multistep":
        message = f"only lr_policy 'multistep' uses stepvalue; {file.get('lr_policy')!r} ignores it"
        yield file.problem(WARNING, "steps", "stepvalue", message)
    if values and 0 < file.get("max_iter") <= values[-1]:
        message = f"the last stepvalue, {values[-1]}, is not reached: max_iter is {file.get('max_iter')}"
        yield file.problem(WARNING, "steps", "stepvalue", message)


def check_iteration_counts(file: SolverFile) -> Iterator[Problem]:
    if file.get("max_iter") < 1:
        yield file.problem(WARNING, "max-iter", "max_iter", "max_iter is not set, so training ends before it begins")
    for name in ("iter_size", "average_loss"):
        if file.get(name) < 1:
            yield file.problem(ERROR, "count", name, f"{name} must be at least 1")


def check_type(file: SolverFile) -> Iterator[Problem]:
    """Yield problems with the solver type and the fields that depend on it, and with regularization_type.

    Source: src/caffe/solver.cpp, include/caffe/sgd_solvers.hpp, src/caffe/util/upgrade_proto.cpp.
    """
    type_ = file.solver.type
    if file.has("type") and file.has("solver_type"):
        yield file.problem(
            ERROR, "solver-type", "solver_type", "it has both type and solver_type, the old form of type"
        )
    if type_ not in SOLVER_TYPES:
        hint = nearest(type_, SOLVER_TYPES) or f"; possible values are {', '.join(SOLVER_TYPES)}"
        yield file.problem(ERROR, "solver-type", "type", f"unknown solver type {type_!r}{hint}")
    if type_ in _WITHOUT_MOMENTUM and file.get("momentum"):
        yield file.problem(ERROR, "momentum", "momentum", f"{type_} has no momentum; Caffe refuses the solver")
    if type_ == "RMSProp" and not 0 <= file.get("rms_decay") < 1:
        yield file.problem(ERROR, "rms-decay", "rms_decay", "rms_decay must be at least 0 and below 1")
    if file.get("regularization_type") not in ("L1", "L2"):
        message = f"regularization_type must be L1 or L2, not {file.get('regularization_type')!r}"
        yield file.problem(ERROR, "regularization", "regularization_type", message)


def check_files(file: SolverFile) -> Iterator[Problem]:
    """Yield problems with the files of the solver: missing ones, and those that exist twice (see `files_beside`)."""
    named = [(name, path) for name in ("net", "train_net") if file.has(name) for path in (file.get(name),)]
    named += [("test_net", path) for path in file.get("test_net")]
    weights = [("weights", path.strip()) for text in file.get("weights") for path in text.split(",")]
    for name, path in weights:
        if not file_exists(file, path):
            message = f"the weights file, {path!r}, does not exist"
            yield file.problem(WARNING, "missing-file", name, message)
    for name, path in (*named, *weights):
        for message in files_beside(file, name, path):
            yield file.problem(WARNING, "two-files", name, message)


def check_snapshot_prefix(file: SolverFile) -> Iterator[Problem]:
    """Yield problems with the folder of the snapshots.

    Source: src/caffe/solver.cpp Solver::CheckSnapshotWritePermissions, which refuses a folder that does not exist.
    """
    prefix = file.get("snapshot_prefix")
    if prefix.startswith("~"):
        message = f"snapshot_prefix {prefix!r}: Caffe does not replace ~ by the home folder; write the whole path"
        yield file.problem(ERROR, "home-folder", "snapshot_prefix", message)
    elif file.get("snapshot") and prefix and not file_exists(file, str(Path(prefix).parent)):
        message = f"the folder for snapshots, {str(Path(prefix).parent)!r}, does not exist"
        yield file.problem(WARNING, "missing-folder", "snapshot_prefix", message)


def files_beside(file: SolverFile, field: str, name: str) -> Iterator[str]:
    """Yield a sentence if a relative path names two files, one from the working folder and one beside the solver."""
    try:
        other = file.solver.file_not_used(name)
    except (OSError, ValueError):
        return  # too long for a path, or with a NUL byte
    if other is not None:
        yield f"{field} {name!r} is read from the working folder, as in Caffe; {str(other)!r} is another file, not used"


def missing_data_files(file: SolverFile, net: Net) -> Iterator[Problem]:
    """Yield a problem for each data source or mean file that a net names and that does not exist, or exists twice."""
    for layer in net.layers:
        layer_type = layers.find_layer_type(layer.type)
        transform = layer.get(TransformationParameter)
        named = [("mean_file", transform.mean_file)] if transform.has("mean_file") else []
        for params in map(layer.get, layer_type.params if layer_type is not None and layer_type.data else ()):
            if "source" in params.fields and params.has("source"):
                named.append(("source", str(dict(params.set_fields())["source"])))
        for name, path in named:
            if not file_exists(file, path):
                yield layer_problem(WARNING, "missing-file", layer, f"{name} {path!r} does not exist")
            for message in files_beside(file, name, path):
                yield layer_problem(WARNING, "two-files", layer, message)


def file_exists(file: SolverFile, name: str) -> bool:
    """Return whether a file that the solver names exists."""
    try:
        return file.solver.locate(name).exists()
    except (OSError, ValueError):
        return False  # too long for a path, or with a NUL byte


SOLVER_RULES = (
    check_fields,
    check_train_net,
    check_test_nets,
    check_learning_rate,
    check_stepvalues,
    check_iteration_counts,
    check_type,
    check_files,
    check_snapshot_prefix,
)
