"""Writing .caffemodel files: from exported models, for another Caffe fork, and with rewritten batch normalisation."""
