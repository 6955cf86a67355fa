// Places in the kernels' sources, for messages.
#include <cstdio>
#include <dlfcn.h>

#include "runtime.h"

namespace simt {

std::string where(const char* what, Place place) {
  std::string text = what ? what : "?";
  if (place.file) text += std::string(" (") + place.file + ":" + std::to_string(place.line) + ")";
  return text;
}

// Asks binutils' addr2line, which stands beside every compiler; without it the function's name has to do.
std::string where(void* pc) {
  Dl_info info;
  if (!dladdr(pc, &info)) return "?";
  std::string found;
  char text[1000];
  const size_t offset = static_cast<char*>(pc) - static_cast<char*>(info.dli_fbase) - 1;
  snprintf(text, sizeof text, "addr2line -e '%s' -i %#zx 2>/dev/null", info.dli_fname, offset);
  if (FILE* pipe = popen(text, "r")) {
    // From the innermost function outwards: the first that is not in the headers of this executor.
    while (fgets(text, sizeof text, pipe)) {
      std::string line = text;
      line.resize(line.find_first_of(" \n"));
      const bool header = line.find("/simt/include/") != std::string::npos;
      if (found.empty() || !header) found = line;
      if (!header) break;
    }
    pclose(pipe);
  }
  if (found.empty() || found[0] == '?') found = info.dli_sname ? info.dli_sname : "?";
  return found;
}

}  // namespace simt
