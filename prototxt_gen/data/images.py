"""Decoding, encoding and resizing of images with OpenCV, as in Caffe itself (src/caffe/util/io.cpp).

Images in this module are height x width x channels, uint8, BGR; nets take channels x height x width.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common.errors import RuntimeMissingError
from prototxt_gen.data.data_errors import BrokenImageError, DataError

Array = npt.NDArray[Any]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")
MAX_PIXELS = 2**26
"""8192 x 8192. OpenCV allocates memory for the size in a file's header before it reads the pixels."""
_PIXEL_LIMIT_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {b"\x08\x00": 1, b"\x08\x02": 3, b"\x08\x06": 4}  # by (bits, colour type) in the header


@lru_cache(maxsize=1)
def opencv() -> Any:
    """Return the package cv2 with its log switched off, because we report broken images ourselves, with their names.

    OpenCV's pixel limit is lowered unless the environment sets it: a file of a few bytes may claim a billion pixels.
    """
    os.environ.setdefault(_PIXEL_LIMIT_VARIABLE, str(MAX_PIXELS))
    try:
        cv2: Any = import_module("cv2")
    except ImportError as error:
        raise RuntimeMissingError("pictures need OpenCV: pip install opencv-python-headless") from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def decode(data: bytes, color: bool | None = True, name: str = "the picture") -> Array:
    """Decode the bytes of an image file to height x width x channels, uint8, BGR.

    `color`: True returns 3 channels, False 1, None those of the file (ReadImageToCVMat and DecodeDatumToCVMatNative in
    src/caffe/util/io.cpp). Raises BrokenImageError for bytes that are not an image or are truncated: OpenCV fills the
    missing rows of a truncated JPEG with grey without a warning.
    """
    cv2 = opencv()
    if _is_truncated(data):
        raise BrokenImageError(f"{name}: the file is cut short")
    flag = {True: cv2.IMREAD_COLOR, False: cv2.IMREAD_GRAYSCALE, None: cv2.IMREAD_UNCHANGED}[color]
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
    except cv2.error as error:
        raise BrokenImageError(f"{name}: OpenCV cannot decode it: {error.err}") from error
    if image is None:
        raise BrokenImageError(f"{name}: not a picture OpenCV can decode")
    if image.dtype != np.uint8:
        raise BrokenImageError(f"{name}: has {image.dtype} pixels; Caffe takes 8 bits per channel only")
    return np.atleast_3d(image)


def encode(image: Array, extension: str) -> bytes:
    """Encode height x width x channels, uint8, as "png" or "jpg" (OpenCV's default quality, 95). Raises DataError."""
    if image.dtype != np.uint8:
        raise DataError(f"only 8-bit pictures can be stored as {extension}; these are {image.dtype}: leave them raw")
    done, data = opencv().imencode(f".{extension}", image)
    if not done:
        raise DataError(f"OpenCV cannot store a picture of {image.shape[2]} channels as {extension}")
    return bytes(data.tobytes())


def resize(image: Array, size: tuple[int, int]) -> Array:
    """Resize height x width x channels to `size` = (height, width), bilinear as in Caffe."""
    if image.shape[:2] == size:
        return image
    out = opencv().resize(np.ascontiguousarray(image), (size[1], size[0]))
    return np.atleast_3d(out)


def to_gray(image: Array, order: str) -> Array:
    """Return 3 channels in `order` "bgr" or "rgb" converted to 1 grey channel, with OpenCV's weights."""
    if image.shape[2] == 1:
        return image
    if image.shape[2] != 3:
        raise DataError(f"an image of {image.shape[2]} channels cannot be made grey; 1 or 3 can")
    cv2 = opencv()
    code = cv2.COLOR_BGR2GRAY if order == "bgr" else cv2.COLOR_RGB2GRAY
    return np.atleast_3d(cv2.cvtColor(np.ascontiguousarray(image), code))


def to_chw(image: Array) -> Array:
    """Return channels x height x width from height x width x channels, contiguous."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def to_hwc(image: Array) -> Array:
    """Return height x width x channels from channels x height x width, contiguous."""
    return np.ascontiguousarray(image.transpose(1, 2, 0))


def may_be_rotated(data: bytes) -> bool:
    """Whether an image file may have an EXIF orientation, which OpenCV applies only in some of its functions."""
    return b"exif" in data[: 1 << 16].lower()


def shape_of_file(data: bytes) -> tuple[int, int, int]:
    """Return (channels, height, width) of an image file, for JPEG and PNG from the header alone."""
    for marker, start in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            height, width = struct.unpack_from(">HH", data, start + 3)
            return (1 if data[start + 7] == 1 else 3), height, width
    if data.startswith(_PNG_SIGNATURE) and data[24:26] in _PNG_CHANNELS:
        width, height = struct.unpack_from(">II", data, 16)
        return _PNG_CHANNELS[data[24:26]], height, width
    height, width, channels = decode(data, None).shape
    return channels, height, width


def _is_truncated(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end marker. Data after the marker (such as a phone's video) is accepted."""
    if data.startswith(_PNG_SIGNATURE):
        return not _png_is_complete(data)
    scans = [start for marker, start in _jpeg_segments(data) if marker == 0xDA]
    return data.startswith(b"\xff\xd8") and (not scans or data.find(b"\xff\xd9", scans[0]) < 0)


def _png_is_complete(data: bytes) -> bool:
    """Whether the chunks of a PNG, followed by their lengths, reach the end chunk.

    OpenCV allocates memory for the length that a chunk claims, which may be 4 GB in a file of a few bytes.
    """
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if kind == b"IEND":
            return True
        position += 12 + length
    return False


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, offset of its length field) up to the first scan. Thumbnails are skipped by their length."""
    position = 2 if data.startswith(b"\xff\xd8") else len(data)
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        yield marker, position + 2
        if marker == 0xDA:
            return
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
