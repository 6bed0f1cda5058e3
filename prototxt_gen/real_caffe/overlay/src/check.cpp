#include "prototxt_gen/check.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <cstring>
#include <exception>

namespace prototxt_gen {

static int SeverityFromEnvironment() {
  const char* value = std::getenv("GLOG_minloglevel");
  return value ? std::atoi(value) : INFO;
}

static std::atomic<int>& Minimum() {
  static std::atomic<int> minimum(SeverityFromEnvironment());
  return minimum;
}

int minimum_severity() { return Minimum(); }

void set_minimum_severity(int severity) { Minimum() = severity; }

static thread_local const LayerScope* innermost = nullptr;

LayerScope::LayerScope(const char* action, const std::string& name, const std::string& type)
    : action_(action), name_(name), type_(type), outer_(innermost) {
  innermost = this;
}

LayerScope::~LayerScope() { innermost = outer_; }

std::string LayerScope::Describe() {
  if (!innermost) { return ""; }
  // A layer may run a net of its own (LSTM): the outermost is the one that the user's file names.
  const LayerScope* scope = innermost;
  while (scope->outer_) { scope = scope->outer_; }
  return std::string(scope->action_) + " of layer '" + scope->name_ + "' (" + scope->type_ + ")";
}

static const char* BaseName(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

// glog's line: I1231 23:59:59 file.cpp:12] text
static std::string Prefix(const char* file, int line, int severity) {
  char date[32];
  const std::time_t now = std::time(nullptr);
  std::tm local;
  std::strftime(date, sizeof(date), "%m%d %H:%M:%S", localtime_r(&now, &local));
  std::ostringstream prefix;
  prefix << "IWEF"[severity] << date << " " << BaseName(file) << ":" << line << "] ";
  return prefix.str();
}

Message::Message(const char* file, int line, int severity)
    : severity_(severity), exceptions_before_(std::uncaught_exceptions()) {
  if (severity == FATAL) {
    text_ << BaseName(file) << ":" << line << ": ";
  } else {
    text_ << Prefix(file, line, severity);
  }
}

Message::~Message() noexcept(false) {
  if (severity_ != FATAL) {
    std::fprintf(stderr, "%s\n", text_.str().c_str());
    return;
  }
  const std::string where = LayerScope::Describe();
  const std::string text = where.empty() ? text_.str() : where + ": " + text_.str();
  if (std::uncaught_exceptions() > exceptions_before_) {  // a second exception would end the process without a word
    std::fprintf(stderr, "%s\n", text.c_str());
    std::abort();
  }
  throw CheckFailure(text);
}

}  // namespace prototxt_gen
