"""Packaging. Tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
TORCH = ["torch>=2.4", "safetensors>=0.4"]
ONNX = ["onnx>=1.16", "onnxruntime>=1.18"]
DATA = ["h5py>=3.10", "lmdb>=1.4", "opencv-python-headless>=4.8,<5"]  # OpenCV 5 has no Caffe importer to compare with
TRAIN = [*TORCH, *DATA, "pillow>=10", "matplotlib>=3.8", "tensorboard>=2.16"]
DRAW = ["pydot>=3.0", "netron>=8.0"]
DEV = [
    "hypothesis>=6.100",
    "import-linter>=2.7",
    "mlxtend>=0.23",
    "mypy>=1.11",
    "types-protobuf>=5.29",
    "types-setuptools>=70",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff>=0.6",
]

setup(
    name="prototxt-gen",
    version="0.1.0",
    description="Caffe nets without Caffe: generate, read, check, train and convert prototxts and caffemodels",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-2-Clause",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["prototxt_gen", "prototxt_gen.*", "converters", "converters.*"]),
        "prototxt_gen.templates",
    ],
    package_dir={"prototxt_gen.templates": "templates"},
    package_data={
        "converters": ["py.typed"],
        "prototxt_gen": ["py.typed", "schema/forks/*.txt"],
        "prototxt_gen.templates": ["*.j2"],
        "prototxt_gen.real_caffe": ["Dockerfile*", "overlay/**/*"],
    },
    install_requires=["click>=8.1", "jinja2>=3.1", "numpy>=1.26", "protobuf>=5.29", "rich>=13"],
    extras_require={
        "torch": TORCH,
        "onnx": ONNX,
        "data": DATA,
        "train": TRAIN,
        "draw": DRAW,
        "dev": [*TRAIN, *ONNX, *DRAW, *DEV],
    },
    entry_points={"console_scripts": ["prototxt-gen=prototxt_gen.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
