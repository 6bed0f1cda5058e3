// Logging and CHECKs for Caffe without glog: a failed CHECK throws, with the layer that was at work, instead of
// aborting the process, so that Python gets an exception. Lines go to stderr in glog's form from GLOG_minloglevel up.
#ifndef PROTOTXT_GEN_CHECK_HPP_
#define PROTOTXT_GEN_CHECK_HPP_

#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

namespace prototxt_gen {

enum Severity { INFO, WARNING, ERROR, FATAL };

class CheckFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

int minimum_severity();
void set_minimum_severity(int severity);

// What this thread is doing, for the text of a failure: `forward of layer 'conv1' (Convolution)`.
class LayerScope {
 public:
  LayerScope(const char* action, const std::string& name, const std::string& type);
  ~LayerScope();
  static std::string Describe();

 private:
  const char* action_;
  const std::string& name_;
  const std::string type_;
  const LayerScope* outer_;
};

// One line of log; the destructor writes it or, at FATAL, throws it.
class Message {
 public:
  Message(const char* file, int line, int severity);
  ~Message() noexcept(false);
  std::ostream& stream() { return text_; }

 private:
  const int severity_;
  const int exceptions_before_;
  std::ostringstream text_;
};

// Binds weaker than << and makes both branches of ?: void.
struct Voidify {
  void operator&(std::ostream&) {}
};

template <typename T>
T NotNull(T&& pointer, const char* file, int line, const char* expression) {
  if (pointer == nullptr) {
    Message(file, line, FATAL).stream() << "Check failed: '" << expression << "' must not be null";
  }
  return std::forward<T>(pointer);
}

#define PROTOTXT_GEN_COMPARISON(name, op)                                                               \
  template <typename A, typename B>                                                                     \
  std::unique_ptr<std::string> Check##name(const A& a, const B& b, const char* expression) {            \
    if (a op b) { return nullptr; }                                                                     \
    std::ostringstream text;                                                                            \
    text << "Check failed: " << expression << " (" << a << " vs. " << b << ") ";                        \
    return std::unique_ptr<std::string>(new std::string(text.str()));                                   \
  }
PROTOTXT_GEN_COMPARISON(EQ, ==)
PROTOTXT_GEN_COMPARISON(NE, !=)
PROTOTXT_GEN_COMPARISON(LE, <=)
PROTOTXT_GEN_COMPARISON(LT, <)
PROTOTXT_GEN_COMPARISON(GE, >=)
PROTOTXT_GEN_COMPARISON(GT, >)
#undef PROTOTXT_GEN_COMPARISON

}  // namespace prototxt_gen

#define PROTOTXT_GEN_LOG(severity) ::prototxt_gen::Message(__FILE__, __LINE__, ::prototxt_gen::severity).stream()
#define PROTOTXT_GEN_LOG_WHEN(severity, condition) \
  !(condition) ? (void)0 : ::prototxt_gen::Voidify() & PROTOTXT_GEN_LOG(severity)
#define PROTOTXT_GEN_ENABLED(severity) (::prototxt_gen::severity >= ::prototxt_gen::minimum_severity())
// A lambda, because a macro used as an expression cannot declare its counter any other way.
#define PROTOTXT_GEN_COUNT() ([] { static long count = 0; return count++; }())

#define LOG(severity) \
  PROTOTXT_GEN_LOG_WHEN(severity, ::prototxt_gen::severity == ::prototxt_gen::FATAL || PROTOTXT_GEN_ENABLED(severity))
#define LOG_IF(severity, condition) \
  PROTOTXT_GEN_LOG_WHEN(severity, (condition) && (::prototxt_gen::severity == ::prototxt_gen::FATAL || \
                                                  PROTOTXT_GEN_ENABLED(severity)))
#define LOG_EVERY_N(severity, n) LOG_IF(severity, PROTOTXT_GEN_COUNT() % (n) == 0)
#define LOG_FIRST_N(severity, n) LOG_IF(severity, PROTOTXT_GEN_COUNT() < (n))
#define DLOG(severity) PROTOTXT_GEN_LOG_WHEN(severity, false)
#define DLOG_IF(severity, condition) PROTOTXT_GEN_LOG_WHEN(severity, false && (condition))

#define CHECK(condition) PROTOTXT_GEN_LOG_WHEN(FATAL, !(condition)) << "Check failed: " #condition " "
#define PROTOTXT_GEN_CHECK_OP(name, op, a, b)                                             \
  while (auto prototxt_gen_failure = ::prototxt_gen::Check##name((a), (b), #a " " #op " " #b)) \
  PROTOTXT_GEN_LOG(FATAL) << *prototxt_gen_failure
#define CHECK_EQ(a, b) PROTOTXT_GEN_CHECK_OP(EQ, ==, a, b)
#define CHECK_NE(a, b) PROTOTXT_GEN_CHECK_OP(NE, !=, a, b)
#define CHECK_LE(a, b) PROTOTXT_GEN_CHECK_OP(LE, <=, a, b)
#define CHECK_LT(a, b) PROTOTXT_GEN_CHECK_OP(LT, <, a, b)
#define CHECK_GE(a, b) PROTOTXT_GEN_CHECK_OP(GE, >=, a, b)
#define CHECK_GT(a, b) PROTOTXT_GEN_CHECK_OP(GT, >, a, b)
#define CHECK_NOTNULL(pointer) ::prototxt_gen::NotNull((pointer), __FILE__, __LINE__, #pointer)

// On in release builds too: they cost little, and a label out of range is otherwise a read out of bounds.
#define DCHECK CHECK
#define DCHECK_EQ CHECK_EQ
#define DCHECK_NE CHECK_NE
#define DCHECK_LE CHECK_LE
#define DCHECK_LT CHECK_LT
#define DCHECK_GE CHECK_GE
#define DCHECK_GT CHECK_GT

#endif  // PROTOTXT_GEN_CHECK_HPP_
