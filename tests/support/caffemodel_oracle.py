"""A second reader of weights files for comparison: google.protobuf with the messages of BVLC's caffe.proto it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

MODELS = Path(__file__).parents[3] / "shared" / "models"

# Per message: field name, number, "label type", + for packed. Types that begin with a capital are messages.
SCHEMA = {
    "BlobShape": "dim 1 int64*+",
    "BlobProto": "num 1 int32, channels 2 int32, height 3 int32, width 4 int32, data 5 float*+, diff 6 float*+,"
    "shape 7 BlobShape, double_data 8 double*+, double_diff 9 double*+, raw_data_type 10 int32, raw_data 12 bytes",
    "Loose": "data 5 float*, double_data 8 double*, shape 7 BlobShape",  # a BlobProto whose numbers are not packed
    "ParamSpec": "name 1 string, lr_mult 3 float, decay_mult 4 float",
    "BNParameter": "momentum 3 float, eps 4 float, frozen 5 bool",
    "LayerParameter": "name 1 string, type 2 string, bottom 3 string*, top 4 string*, loss_weight 5 float*,"
    "param 6 ParamSpec*, blobs 7 BlobProto*, phase 10 int32, propagate_down 11 bool*, bn_param 148 BNParameter",
    "V0LayerParameter": "name 1 string, type 2 string, num_output 3 uint32, blobs 50 BlobProto*, blobs_lr 51 float*",
    "V1LayerParameter": "layer 1 V0LayerParameter, bottom 2 string*, top 3 string*, name 4 string, type 5 int32,"
    "blobs 6 BlobProto*, blobs_lr 7 float*",
    "NetParameter": "name 1 string, layers 2 V1LayerParameter*, input 3 string*, layer 100 LayerParameter*",
    "SolverState": "iter 1 int32, learned_net 2 string, history 3 BlobProto*, current_step 4 int32",
}


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="oracle.proto", package="oracle", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, number, type_ in (each.split() for each in fields.split(",")):
            added = message.field.add(name=field, number=int(number))
            added.label = kinds.LABEL_REPEATED if "*" in type_ else kinds.LABEL_OPTIONAL
            added.options.packed = "+" in type_
            kind = type_.strip("*+")
            if kind[0].isupper():
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".oracle.{kind}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"oracle.{name}")) for name in SCHEMA}


ORACLE = _build()


def message(kind: str, **fields: Any) -> Any:
    """Return a protobuf message; dicts and lists are converted as by protobuf's constructors."""
    return ORACLE[kind](**fields)


def blob(shape: list[int], data: list[float], **fields: Any) -> Any:
    """Return a BlobProto with packed floats."""
    return message("BlobProto", shape={"dim": shape}, data=data, **fields)


def parsed(kind: str, data: bytes) -> Any:
    """Return `data` parsed by protobuf."""
    return ORACLE[kind].FromString(data)


def loose(shape: list[int], *runs: tuple[str, list[float]]) -> bytes:
    """Return the bytes of a BlobProto in which each run of numbers is encoded separately, packed or not."""
    pieces = [message("BlobProto", shape={"dim": shape})]
    pieces += [message("BlobProto" if kind == "packed" else "Loose", data=data) for kind, data in runs]
    return b"".join(bytes(piece.SerializeToString()) for piece in pieces)
