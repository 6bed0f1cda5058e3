"""Data sets: reading images, writing LMDB and HDF5, and computing batches for nets.

make                  `make(src, out)`: convert any supported source to an LMDB or HDF5 data set that Caffe reads
info                  `info(path)`, `mean(path)`: the content of a data set, and its mean image
data_set_reader       `open_dataset(path)`: random access to (channels x height x width, label)
sources               folders of classes, list files, .npz, CIFAR and MNIST files
transform             Caffe's own transformation of images (transform_param)
augmentation          further augmentation for training
batch_loader          batches as a pure function of (seed, batch index), computed in worker processes
augmented_data_layer  the Caffe layer of type Python that outputs those batches

Importing this package loads nothing: NumPy, OpenCV, lmdb and h5py are imported with the module that needs them.
"""

from __future__ import annotations
