"""Recurrent layers of Caffe: RNN, LSTM and LSTMUnit."""
