// The plain build watches nothing.
#include "runtime.h"

namespace simt {

Checks* const checks = nullptr;

}  // namespace simt
