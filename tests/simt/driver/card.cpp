// card.cpp
// The card and its properties; words for errors.
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "driver.h"

namespace driver {

namespace {

std::atomic<bool> started{false};
std::atomic<int> misuses{0};

std::string chosen;

Card read_card() {
  Card card;
  const char* said = getenv("SIMT_CARD");
  std::istringstream words(chosen + " " + (said ? said : ""));
  for (std::string word; words >> word;) {
    const size_t middle = word.find('=');
    const std::string name = word.substr(0, middle);
    int64_t* const number = name == "cards"             ? &card.cards
                            : name == "driver"          ? &card.driver
                            : name == "major"           ? &card.major
                            : name == "minor"           ? &card.minor
                            : name == "multiprocessors" ? &card.multiprocessors
                            : name == "shared_bytes"    ? &card.shared_bytes
                            : name == "memory_bytes"    ? &card.memory_bytes
                            : name == "pages"           ? &card.pages
                            : name == "fault"           ? &card.fault
                            : name == "rate"            ? &card.rate
                                                        : nullptr;
    if (!number || middle == std::string::npos) {
      fprintf(stderr, "libcuda: SIMT_CARD: `%s` is no property of a card\n", word.c_str());
      abort();
    }
    *number = atoll(word.c_str() + middle + 1);
  }
  return card;
}

struct Words {
  Result result;
  const char *name, *text;
};

const Words WORDS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error"},
    {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"},
    {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to end a capture of another thread"},
};

const Words* words_of(int result) {
  for (const Words& words : WORDS) {
    if (words.result == result) return &words;
  }
  return nullptr;
}

// CUdevice_attribute
enum Attribute : int {
  MULTIPROCESSORS = 16,
  COMPUTE_CAPABILITY_MAJOR = 75,
  COMPUTE_CAPABILITY_MINOR = 76,
  SHARED_BYTES_OF_A_BLOCK = 97,
  READS_THE_HOSTS_PAGES = 100,
};

}  // namespace

const Card& card() {
  static const Card card = read_card();
  return card;
}

Result check_card(const char* call, int device) {
  if (!started) return misuse(NOT_INITIALIZED, call, "cuInit was not called");
  if (device < 0 || device >= card().cards) return misuse(INVALID_DEVICE, call, "there is no such card");
  return SUCCESS;
}

Result misuse(Result result, const char* call, const std::string& why) {
  misuses++;
  const Words* words = words_of(result);
  fprintf(stderr, "libcuda: %s: %s (%s)\n", call, why.c_str(), words ? words->name : "?");
  return result;
}

}  // namespace driver

using namespace driver;

// Properties of the card, before those that the variable says; before any other call.
extern "C" SIMT_PUBLIC void simt_driver_card(const char* properties) { chosen = properties; }

// How often the driver was used in a way that it should not be.
extern "C" SIMT_PUBLIC int simt_driver_misuses() { return misuses; }

CUDA_CALL cuInit(unsigned flags) {
  if (flags != 0) return misuse(INVALID_VALUE, __func__, "flags must be 0");
  if (card().cards == 0) return NO_DEVICE;
  started = true;
  return SUCCESS;
}

CUDA_CALL cuDriverGetVersion(int* version) {
  *version = int(card().driver);
  return SUCCESS;
}

CUDA_CALL cuDeviceGetCount(int* count) {
  if (!started) return misuse(NOT_INITIALIZED, __func__, "cuInit was not called");
  *count = int(card().cards);
  return SUCCESS;
}

CUDA_CALL cuDeviceGet(int* device, int number) {
  *device = number;
  return check_card(__func__, number);
}

CUDA_CALL cuDeviceGetName(char* name, int bytes, int device) {
  if (const Result wrong = check_card(__func__, device)) return wrong;
  snprintf(name, size_t(bytes), "SIMT executor %d", device);
  return SUCCESS;
}

CUDA_CALL cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (const Result wrong = check_card(__func__, device)) return wrong;
  switch (attribute) {
    case MULTIPROCESSORS: *value = int(card().multiprocessors); return SUCCESS;
    case COMPUTE_CAPABILITY_MAJOR: *value = int(card().major); return SUCCESS;
    case COMPUTE_CAPABILITY_MINOR: *value = int(card().minor); return SUCCESS;
    case SHARED_BYTES_OF_A_BLOCK: *value = int(card().shared_bytes); return SUCCESS;
    case READS_THE_HOSTS_PAGES: *value = int(card().pages); return SUCCESS;
  }
  return misuse(INVALID_VALUE, __func__, "attribute " + std::to_string(attribute) + " is not known here");
}

CUDA_CALL cuGetErrorName(int result, const char** name) {
  const Words* words = words_of(result);
  *name = words ? words->name : nullptr;
  return words ? SUCCESS : INVALID_VALUE;
}

CUDA_CALL cuGetErrorString(int result, const char** text) {
  const Words* words = words_of(result);
  *text = words ? words->text : nullptr;
  return words ? SUCCESS : INVALID_VALUE;
}
