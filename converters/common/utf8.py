"""Text that ONNX and safetensors files can store."""


def valid_utf8(text: str) -> str:
    r"""Return the text with bytes that are not UTF-8 (surrogates from reading a prototxt) as escapes such as \xe9."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
