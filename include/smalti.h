/* smalti: LlamaGen image generation. The C interface.
 *
 * A handle is a number in the guise of a pointer: one that is null, closed or made up is
 * SMALTI_STATUS_INVALID_HANDLE. What goes wrong is a status, and smalti_last_error() has the words, per
 * thread. Structs begin with struct_size, and their _init functions fill in all defaults: call those first.
 * Strings are UTF-8, end with a zero, and are copied. Functions may be called from any thread at once.
 *
 * Made from src/capi; do not edit. */

#ifndef SMALTI_H
#define SMALTI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What this header promises: programs built with it run with every library of the same major number that says at
// least the same minor one.
#define SMALTI_ABI_MAJOR 1

// Grows with every addition.
#define SMALTI_ABI_MINOR 2

// How a call ended. Negative numbers are failures; numbers keep their meaning for ever.
enum smalti_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  SMALTI_STATUS_OK = 0,
  // Not done yet; not a failure.
  SMALTI_STATUS_PENDING = 1,
  // A value outside its range, or a null pointer where none may be.
  SMALTI_STATUS_INVALID_ARGUMENT = -1,
  // A handle that is null, closed, or no handle.
  SMALTI_STATUS_INVALID_HANDLE = -2,
  // The operating system refused.
  SMALTI_STATUS_IO = -3,
  // Checkpoints that are damaged or do not fit together.
  SMALTI_STATUS_BAD_MODEL = -4,
  SMALTI_STATUS_OUT_OF_MEMORY = -5,
  // A device that cannot be used, or failed at work.
  SMALTI_STATUS_DEVICE = -6,
  SMALTI_STATUS_CANCELLED = -7,
  // Not done within the request's deadline.
  SMALTI_STATUS_DEADLINE = -8,
  // The queue is full; try again later.
  SMALTI_STATUS_BUSY = -9,
  // The engine takes no more requests, or ended before this one was done.
  SMALTI_STATUS_ENDED = -10,
  SMALTI_STATUS_BUFFER_TOO_SMALL = -11,
  // A defect of the library.
  SMALTI_STATUS_INTERNAL = -99,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum smalti_status smalti_status;
#else
typedef int32_t smalti_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A model at work on a device.
typedef struct smalti_engine smalti_engine;

// Pictures that were asked for.
typedef struct smalti_request smalti_request;

// What an engine is made of. Null pointers and zeros stand for the defaults: without checkpoints, the demo model that
// is a part of the library.
typedef struct smalti_engine_options {
  // The size of this struct in the caller's header.
  size_t struct_size;
  // The transformer's checkpoint; null, and `vq_path` with it, for the demo model.
  const char *gpt_path;
  // The VQ model's checkpoint.
  const char *vq_path;
  // A text model's encoder: a Hugging Face T5 folder.
  const char *t5_path;
  // "auto" (also null), "cpu", "cuda" or "cuda:1".
  const char *device;
  // Where the text encoder runs; null for where all else does.
  const char *text_device;
  // What weights are held as: 0 for bf16, 1 for f32.
  uint32_t f32;
  // CPU threads; 0 for one per core.
  uint32_t threads;
  // Side of the pictures in pixels; 0 for what the checkpoint tells.
  uint32_t image_size;
  // Attention heads, where the checkpoint does not tell; 0 for what it tells.
  uint32_t n_head;
  // Pictures at once; 0 for as many as are of use.
  uint32_t batch_size;
  // Requests that may wait; 0 for 64.
  uint32_t queue;
  // Rows of a pass per picture while few are drawn; 0 to let the engine choose, 1 for a token after the other.
  // Changes the time alone.
  uint32_t lookahead;
  // Which half of the demo model: 0 for the one that takes prompts, else the one that takes classes.
  uint32_t demo_classes;
} smalti_engine_options;

// Called on the engine's thread whenever a picture has further rows, with its place in the request, its rows so far
// and of how many. Must not take long, nor call the library but for smalti_request_cancel. Returning false cancels.
typedef bool (*smalti_progress_callback)(void *user_data, uint32_t image, uint32_t rows, uint32_t of);

// What is asked for: pictures of prompts, or of classes.
typedef struct smalti_request_options {
  // The size of this struct in the caller's header.
  size_t struct_size;
  // `subjects` prompts, for text models.
  const char *const *prompts;
  // `subjects` classes, for class models; smalti_engine_class finds them by name.
  const uint32_t *classes;
  size_t subjects;
  // Pictures of each subject. By default 1.
  uint32_t count;
  // Draw the likeliest codes always, unless 0.
  uint32_t greedy;
  // Number of the first picture; number and seed decide a picture's noise.
  uint64_t first_image;
  uint64_t seed;
  // Guidance; 1 or less switches it off. By default NaN, for the model's own.
  float cfg_scale;
  // Guide only the first tokens, up to this one and the next. By default -1, for all.
  int32_t cfg_interval;
  // By default 1.
  float temperature;
  // In (0, 1]. By default 1.
  float top_p;
  // Draw among that many codes; 0 for all. By default -1, for the model's own.
  int64_t top_k;
  // Time from submission in which it must be done, in milliseconds; 0 for no limit.
  uint64_t deadline_ms;
  // (pictures, height, width, 3) u8 out: written by the smalti_request_wait or smalti_request_poll that returns
  // SMALTI_STATUS_OK, and by nothing else. May be null.
  void *output;
  // Room at `output` in bytes.
  size_t output_bytes;
  // A `smalti_memory`: what `output` points into. By default the host's.
  uint32_t output_memory;
  // For SMALTI_MEMORY_CUDA: the caller's CUstream or cudaStream_t, which captures no graph; null for the default stream.
  // The engine's thread waits for its copies.
  void *cuda_stream;
  // May be null.
  smalti_progress_callback progress;
  // Handed to `progress`.
  void *user_data;
} smalti_request_options;

// What an engine draws, and how.
typedef struct smalti_engine_info {
  // The size of this struct in the caller's header.
  size_t struct_size;
  // Side of the pictures in pixels.
  uint32_t image_size;
  // Codes per side of a picture.
  uint32_t latent_size;
  // Classes of a class model; 0 for a text model.
  uint32_t num_classes;
  // Pictures at once.
  uint32_t batch_size;
} smalti_engine_info;

// How far a request is.
typedef struct smalti_request_progress {
  // The size of this struct in the caller's header.
  size_t struct_size;
  // Pictures that it asks for.
  uint32_t images;
  // Pictures that are done.
  uint32_t images_done;
  // Rows of codes that are drawn, of all pictures.
  uint64_t rows_done;
  // Rows of all pictures.
  uint64_t rows;
} smalti_request_progress;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Copies the words for this thread's last failure to `buffer`, as many as fit, with a zero behind them.
//
// Returns how many bytes all of them take, with the zero; 1 when nothing has failed yet. `buffer` may be null when
// `capacity` is 0.
//
// # Safety
//
// `buffer` has room for `capacity` bytes.
size_t smalti_last_error(char *buffer,
                         size_t capacity);

// The name of a status: "SMALTI_STATUS_BUSY". A constant that need not be freed.
const char *smalti_status_name(int32_t status);

// The library's version: "0.1.0". A constant that need not be freed.
const char *smalti_version(void);

// The library's SMALTI_ABI_MAJOR and SMALTI_ABI_MINOR. Either pointer may be null.
//
// # Safety
//
// What is not null can be written to.
void smalti_abi_version(uint32_t *major, uint32_t *minor);

// Fills in the defaults. `struct_size` is `sizeof *options`.
//
// # Safety
//
// `options` has `struct_size` bytes.
smalti_status smalti_engine_options_init(struct smalti_engine_options *options, size_t struct_size);

// Fills in the defaults. `struct_size` is `sizeof *options`.
//
// # Safety
//
// `options` has `struct_size` bytes.
smalti_status smalti_request_options_init(struct smalti_request_options *options,
                                          size_t struct_size);

// Makes the struct ready for smalti_engine_get_info. `struct_size` is `sizeof *info`.
//
// # Safety
//
// `info` has `struct_size` bytes.
smalti_status smalti_engine_info_init(struct smalti_engine_info *info, size_t struct_size);

// Makes the struct ready for smalti_request_get_progress. `struct_size` is `sizeof *progress`.
//
// # Safety
//
// `progress` has `struct_size` bytes.
smalti_status smalti_request_progress_init(struct smalti_request_progress *progress,
                                           size_t struct_size);

// Opens a model and lays it out on a device. `*engine` is closed with smalti_engine_close.
//
// # Safety
//
// `options` was initialised and its strings end with a zero; `engine` can be written to.
smalti_status smalti_engine_create(const struct smalti_engine_options *options,
                                   struct smalti_engine **engine);

// Tells what an engine draws. `info` was initialised.
//
// # Safety
//
// `info` has the bytes that its `struct_size` says.
smalti_status smalti_engine_get_info(const struct smalti_engine *engine,
                                     struct smalti_engine_info *info);

// Finds a class by its name or number.
//
// # Safety
//
// `name` ends with a zero; `class_number` can be written to.
smalti_status smalti_engine_class(const struct smalti_engine *engine,
                                  const char *name,
                                  uint32_t *class_number);

// Takes no more requests and waits until those are done that were taken. The handle stays open.
smalti_status smalti_engine_drain(const struct smalti_engine *engine);

// Ends all requests, with SMALTI_STATUS_ENDED, and frees the device. Their handles are closed on their own.
smalti_status smalti_engine_close(struct smalti_engine *engine);

// Submits a request; `*request` is closed with smalti_request_close, which also cancels it.
//
// # Safety
//
// `options` was initialised and its lists are as long as it says; `request` can be written to. `output` stays good
// until the request was waited for or closed, `user_data` until then or until the engine is closed.
smalti_status smalti_submit(const struct smalti_engine *engine,
                            const struct smalti_request_options *options,
                            struct smalti_request **request);

// Waits until a request is done, for at most `timeout_ms` milliseconds; for ever when that is negative.
//
// SMALTI_STATUS_OK: all pictures are done and lie in `output`. SMALTI_STATUS_PENDING: not yet. Else why there are
// none. May be called again, and by several threads.
//
// # Safety
//
// The request's `output` is still good.
smalti_status smalti_request_wait(const struct smalti_request *request,
                                  int64_t timeout_ms);

// As smalti_request_wait with a timeout of 0.
//
// # Safety
//
// The request's `output` is still good.
smalti_status smalti_request_poll(const struct smalti_request *request);

// Tells how far a request is. `progress` was initialised.
//
// # Safety
//
// `progress` has the bytes that its `struct_size` says.
smalti_status smalti_request_get_progress(const struct smalti_request *request,
                                          struct smalti_request_progress *progress);

// Copies the codes of a picture that is done, in raster order; `*needed` (may be null) is how many there are. With
// too little room nothing is copied: SMALTI_STATUS_BUFFER_TOO_SMALL.
//
// # Safety
//
// `codes` has room for `capacity` codes.
smalti_status smalti_request_codes(const struct smalti_request *request,
                                   uint32_t image,
                                   uint32_t *codes,
                                   size_t capacity,
                                   size_t *needed);

// Copies a picture that is done as a PNG file; else as smalti_request_codes.
//
// # Safety
//
// `png` has room for `capacity` bytes.
smalti_status smalti_request_png(const struct smalti_request *request,
                                 uint32_t image,
                                 uint8_t *png,
                                 size_t capacity,
                                 size_t *needed);

// Copies the part of a picture's prompt that was too much for the text encoder, as UTF-8 with a zero behind it: the
// zero alone where nothing was cut; else as smalti_request_codes.
//
// # Safety
//
// `text` has room for `capacity` bytes.
smalti_status smalti_request_prompt_cut(const struct smalti_request *request,
                                        uint32_t image,
                                        char *text,
                                        size_t capacity,
                                        size_t *needed);

// Asks a request to end, from any thread; it ends at the next step, with SMALTI_STATUS_CANCELLED.
smalti_status smalti_request_cancel(const struct smalti_request *request);

// Cancels what is not done and closes the handle.
smalti_status smalti_request_close(struct smalti_request *request);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SMALTI_H */
