// Stands in for glog's header: see prototxt_gen/check.hpp.
#ifndef PROTOTXT_GEN_GLOG_LOGGING_H_
#define PROTOTXT_GEN_GLOG_LOGGING_H_

#include "prototxt_gen/check.hpp"

namespace google {
inline void InitGoogleLogging(const char*) {}
inline void InstallFailureSignalHandler() {}
}  // namespace google

#endif  // PROTOTXT_GEN_GLOG_LOGGING_H_
