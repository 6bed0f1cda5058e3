"""The data-set side of the toolkit: reading pictures, writing LMDB and HDF5, and feeding nets from them.

make      `make(src, out)`: any supported source becomes an LMDB or HDF5 set that Caffe reads
info      `info(path)`, `mean(path)`: what a data set holds, and its mean
reader    `open_dataset(path)`: random access to (channels x height x width, label)
sources   folders of classes, list files, .npz, CIFAR and MNIST files
augment   Caffe's own transformation, and the augmentation nets are trained with
loader    batches as a function of (seed, batch index), prepared in other processes
caffe_layer  the layer of type Python that gives those batches to Caffe

Importing this package loads nothing: NumPy, OpenCV, lmdb and h5py come with the module that needs them.
"""

from __future__ import annotations
