// Stands in for gflags' header: a Python module has no command line of its own.
#ifndef GFLAGS_GFLAGS_H_
#define GFLAGS_GFLAGS_H_

namespace gflags {
inline void ParseCommandLineFlags(int*, char***, bool) {}
}  // namespace gflags

#endif  // GFLAGS_GFLAGS_H_
