"""Common layers of Caffe's catalogue: InnerProduct, Dropout, Embed."""
