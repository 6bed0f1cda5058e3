// Swish, x * sigmoid(beta * x), and Clip, min(max(x, min), max): in Caffe since 2018, after our sources' last merge.

#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe/layers/neuron_layer.hpp"

namespace caffe {

template <typename Dtype>
class SwishLayer : public NeuronLayer<Dtype> {
 public:
  explicit SwishLayer(const LayerParameter& param) : NeuronLayer<Dtype>(param) {}
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    NeuronLayer<Dtype>::Reshape(bottom, top);
    input_.ReshapeLike(*bottom[0]);
  }
  virtual inline const char* type() const { return "Swish"; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    input_.CopyFrom(*bottom[0]);  // for the gradient: the layer may work in place
    const Dtype* x = input_.cpu_data();
    for (int i = 0; i < input_.count(); ++i) {
      top[0]->mutable_cpu_data()[i] = x[i] * Gate(x[i]);
    }
  }
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
    const Dtype beta = this->layer_param_.swish_param().beta();
    const Dtype* x = input_.cpu_data();
    for (int i = 0; propagate_down[0] && i < input_.count(); ++i) {
      const Dtype gate = Gate(x[i]);
      bottom[0]->mutable_cpu_diff()[i] = top[0]->cpu_diff()[i] * gate * (1 + beta * x[i] * (1 - gate));
    }
  }

 private:
  Dtype Gate(Dtype x) const {
    return Dtype(0.5) * std::tanh(Dtype(0.5) * this->layer_param_.swish_param().beta() * x) + Dtype(0.5);
  }

  Blob<Dtype> input_;
};

template <typename Dtype>
class ClipLayer : public NeuronLayer<Dtype> {
 public:
  explicit ClipLayer(const LayerParameter& param) : NeuronLayer<Dtype>(param) {}
  virtual inline const char* type() const { return "Clip"; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    const ClipParameter& param = this->layer_param_.clip_param();
    for (int i = 0; i < bottom[0]->count(); ++i) {
      top[0]->mutable_cpu_data()[i] =
          std::max(Dtype(param.min()), std::min(bottom[0]->cpu_data()[i], Dtype(param.max())));
    }
  }
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
    const ClipParameter& param = this->layer_param_.clip_param();
    for (int i = 0; propagate_down[0] && i < bottom[0]->count(); ++i) {
      const Dtype x = bottom[0]->cpu_data()[i];
      bottom[0]->mutable_cpu_diff()[i] = x >= param.min() && x <= param.max() ? top[0]->cpu_diff()[i] : Dtype(0);
    }
  }
};

INSTANTIATE_CLASS(SwishLayer);
REGISTER_LAYER_CLASS(Swish);
INSTANTIATE_CLASS(ClipLayer);
REGISTER_LAYER_CLASS(Clip);

}  // namespace caffe
