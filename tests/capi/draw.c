// Draws through the C interface and does everything wrong that can be done wrong.
//
//   draw GPT VQ TEXT_GPT T5 [demo]
//
// The sanitizers watch: nothing may leak, and no wrong handle, struct or buffer may be followed.
#include <math.h>
#include <pthread.h>
#include <smalti.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what)                                                     \
  do {                                                                  \
    if (!(what)) {                                                      \
      char words[512];                                                  \
      smalti_last_error(words, sizeof words);                           \
      fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #what, words); \
      exit(1);                                                          \
    }                                                                   \
  } while (0)

enum { SIDE = 64, ROWS = 4, TOKENS = ROWS * ROWS, PIXELS = 3 * SIDE * SIDE };

static smalti_engine *open_engine(const char *gpt, const char *vq) {
  smalti_engine_options options;
  CHECK(smalti_engine_options_init(&options, sizeof options) == SMALTI_STATUS_OK);
  options.gpt_path = gpt;
  options.vq_path = vq;
  options.device = "cpu";
  options.image_size = SIDE;
  options.batch_size = 2;
  smalti_engine *engine = NULL;
  options.lookahead = TOKENS + 1;
  CHECK(smalti_engine_create(&options, &engine) == SMALTI_STATUS_INVALID_ARGUMENT && engine == NULL);
  options.lookahead = 4;
  CHECK(smalti_engine_create(&options, &engine) == SMALTI_STATUS_OK);
  CHECK(engine != NULL);
  return engine;
}

static smalti_request_options request_for(const uint32_t *classes, size_t subjects) {
  smalti_request_options options;
  CHECK(smalti_request_options_init(&options, sizeof options) == SMALTI_STATUS_OK);
  CHECK(isnan(options.cfg_scale) && options.top_k == -1 && options.count == 1);
  options.classes = classes;
  options.subjects = subjects;
  options.seed = 7;
  return options;
}

struct Seen {
  unsigned calls, last;
};

static bool note(void *user_data, uint32_t image, uint32_t rows, uint32_t of) {
  struct Seen *seen = user_data;
  seen->calls++;
  seen->last = rows;
  return image < 2 && rows <= of;
}

static bool refuse(void *user_data, uint32_t image, uint32_t rows, uint32_t of) {
  (void)user_data, (void)image, (void)rows, (void)of;
  return false;
}

// Draws two classes; the same request gives the same bytes whatever else is drawn.
static void draw(smalti_engine *engine, uint8_t *pixels) {
  const uint32_t classes[2] = {3, 7};
  smalti_request_options options = request_for(classes, 2);
  struct Seen seen = {0, 0};
  options.output = pixels;
  options.output_bytes = 2 * PIXELS;
  options.progress = note;
  options.user_data = &seen;
  smalti_request *request = NULL;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_OK);
  CHECK(smalti_request_wait(request, -1) == SMALTI_STATUS_OK);
  CHECK(smalti_request_wait(request, 0) == SMALTI_STATUS_OK);
  CHECK(smalti_request_poll(request) == SMALTI_STATUS_OK);
  CHECK(seen.calls >= 2 && seen.last <= ROWS);

  smalti_request_progress progress;
  CHECK(smalti_request_progress_init(&progress, sizeof progress) == SMALTI_STATUS_OK);
  CHECK(smalti_request_get_progress(request, &progress) == SMALTI_STATUS_OK);
  CHECK(progress.images == 2 && progress.images_done == 2);
  CHECK(progress.rows == 2 * ROWS && progress.rows_done == 2 * ROWS);

  uint32_t codes[TOKENS];
  size_t needed = 0;
  CHECK(smalti_request_codes(request, 1, codes, TOKENS, &needed) == SMALTI_STATUS_OK && needed == TOKENS);
  CHECK(smalti_request_codes(request, 1, codes, TOKENS - 1, &needed) == SMALTI_STATUS_BUFFER_TOO_SMALL);
  CHECK(smalti_request_codes(request, 2, codes, TOKENS, NULL) == SMALTI_STATUS_INVALID_ARGUMENT);
  CHECK(smalti_request_png(request, 0, NULL, 0, &needed) == SMALTI_STATUS_BUFFER_TOO_SMALL);
  uint8_t *png = malloc(needed);
  CHECK(smalti_request_png(request, 0, png, needed, NULL) == SMALTI_STATUS_OK);
  CHECK(memcmp(png, "\x89PNG", 4) == 0);
  free(png);
  CHECK(smalti_request_close(request) == SMALTI_STATUS_OK);
}

struct Thread {
  smalti_engine *engine;
  uint8_t pixels[2 * PIXELS];
};

static void *draw_beside(void *thread) {
  struct Thread *own = thread;
  draw(own->engine, own->pixels);
  return NULL;
}

static void draws_the_same_in_company(smalti_engine *engine) {
  static struct Thread threads[4];
  static uint8_t alone[2 * PIXELS];
  draw(engine, alone);
  pthread_t ids[4];
  for (int i = 0; i < 4; i++) {
    threads[i].engine = engine;
    CHECK(pthread_create(&ids[i], NULL, draw_beside, &threads[i]) == 0);
  }
  for (int i = 0; i < 4; i++) {
    CHECK(pthread_join(ids[i], NULL) == 0);
    CHECK(memcmp(threads[i].pixels, alone, sizeof alone) == 0);
  }
  bool plain = true;
  for (size_t i = 1; i < sizeof alone; i++) plain = plain && alone[i] == alone[0];
  CHECK(!plain);
}

static void tells_of_itself(smalti_engine *engine) {
  smalti_engine_info info;
  CHECK(smalti_engine_info_init(&info, sizeof info) == SMALTI_STATUS_OK);
  CHECK(smalti_engine_get_info(engine, &info) == SMALTI_STATUS_OK);
  CHECK(info.image_size == SIDE && info.latent_size == ROWS && info.num_classes == 10 && info.batch_size == 2);
  uint32_t number = 0;
  CHECK(smalti_engine_class(engine, "7", &number) == SMALTI_STATUS_OK && number == 7);
  CHECK(smalti_engine_class(engine, "zebra", &number) == SMALTI_STATUS_INVALID_ARGUMENT);
  CHECK(smalti_engine_class(engine, NULL, &number) == SMALTI_STATUS_INVALID_ARGUMENT);
  CHECK(smalti_engine_class(engine, "7", NULL) == SMALTI_STATUS_INVALID_ARGUMENT);
  CHECK(smalti_engine_class(engine, "\xff", &number) == SMALTI_STATUS_INVALID_ARGUMENT);

  uint32_t major = 0, minor = 0;
  smalti_abi_version(&major, &minor);
  smalti_abi_version(NULL, NULL);
  CHECK(major == SMALTI_ABI_MAJOR && minor == SMALTI_ABI_MINOR);
  CHECK(strlen(smalti_version()) > 0);
  CHECK(strcmp(smalti_status_name(SMALTI_STATUS_BUSY), "SMALTI_STATUS_BUSY") == 0);
  CHECK(strcmp(smalti_status_name(12345), "SMALTI_STATUS_UNKNOWN") == 0);
}

static void refuses_what_is_wrong(smalti_engine *engine) {
  const uint32_t one = 3, many = 99;
  smalti_request *request = NULL;
  smalti_request_options options = request_for(&one, 1);
  int made_up = 0;

  CHECK(smalti_submit(NULL, &options, &request) == SMALTI_STATUS_INVALID_HANDLE);
  CHECK(smalti_submit((smalti_engine *)&made_up, &options, &request) == SMALTI_STATUS_INVALID_HANDLE);
  CHECK(smalti_submit(engine, NULL, &request) == SMALTI_STATUS_INVALID_ARGUMENT);
  CHECK(smalti_submit(engine, &options, NULL) == SMALTI_STATUS_INVALID_ARGUMENT);
  CHECK(smalti_request_wait(NULL, 0) == SMALTI_STATUS_INVALID_HANDLE);
  CHECK(smalti_request_cancel((smalti_request *)engine) == SMALTI_STATUS_INVALID_HANDLE);
  CHECK(smalti_engine_close(NULL) == SMALTI_STATUS_INVALID_HANDLE);
  char words[64];
  CHECK(smalti_last_error(NULL, 0) > 10);
  CHECK(smalti_last_error(words, sizeof words) > 10 && strstr(words, "engine") && strstr(words, "null"));
  CHECK(smalti_last_error(words, 4) > 4 && strlen(words) == 3);

  options.struct_size = 0;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_INVALID_ARGUMENT && request == NULL);
  options = request_for(&many, 1);
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_INVALID_ARGUMENT);
  options = request_for(NULL, 1);
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_INVALID_ARGUMENT);
  options = request_for(&one, 0);
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_INVALID_ARGUMENT);
  const char *const prompt = "a fish";
  options = request_for(NULL, 1);
  options.prompts = &prompt;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_INVALID_ARGUMENT);
  options = request_for(&one, 1);
  options.top_p = 0;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_INVALID_ARGUMENT);
  options = request_for(&one, 1);
  options.count = 0;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_INVALID_ARGUMENT);
  options.count = UINT32_MAX;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_INVALID_ARGUMENT);
  uint8_t little[16];
  options = request_for(&one, 1);
  options.output = little;
  options.output_bytes = sizeof little;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_BUFFER_TOO_SMALL);
  options.output_memory = 7;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_INVALID_ARGUMENT);

  smalti_engine_options none;
  CHECK(smalti_engine_options_init(NULL, sizeof none) == SMALTI_STATUS_INVALID_ARGUMENT);
  CHECK(smalti_engine_options_init(&none, sizeof none) == SMALTI_STATUS_OK);
  smalti_engine *other = engine;
  none.gpt_path = "no such file.pt";
  CHECK(smalti_engine_create(&none, &other) == SMALTI_STATUS_INVALID_ARGUMENT && other == NULL);
  none.vq_path = none.gpt_path;
  CHECK(smalti_engine_create(&none, &other) == SMALTI_STATUS_IO);
  none.device = "toaster";
  CHECK(smalti_engine_create(&none, &other) != SMALTI_STATUS_OK);
}

// A program that was built with an older, shorter header.
static void knows_older_structs(smalti_engine *engine) {
  struct {
    size_t struct_size;
    const char *const *prompts;
    const uint32_t *classes;
    size_t subjects;
  } older;
  const uint32_t one = 3;
  CHECK(smalti_request_options_init((smalti_request_options *)(void *)&older, sizeof older) == SMALTI_STATUS_OK);
  CHECK(older.struct_size == sizeof older);
  older.classes = &one;
  older.subjects = 1;
  smalti_request *request = NULL;
  CHECK(smalti_submit(engine, (const smalti_request_options *)(const void *)&older, &request) == SMALTI_STATUS_OK);
  CHECK(smalti_request_wait(request, -1) == SMALTI_STATUS_OK);
  CHECK(smalti_request_close(request) == SMALTI_STATUS_OK);
  CHECK(smalti_request_close(request) == SMALTI_STATUS_INVALID_HANDLE);
  CHECK(smalti_request_wait(request, -1) == SMALTI_STATUS_INVALID_HANDLE);
}

static void ends_what_is_cancelled(smalti_engine *engine) {
  const uint32_t one = 3;
  smalti_request *request = NULL;
  smalti_request_options options = request_for(&one, 1);
  options.count = 200;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_OK);
  CHECK(smalti_request_poll(request) == SMALTI_STATUS_PENDING);
  uint32_t codes[TOKENS];
  CHECK(smalti_request_codes(request, 199, codes, TOKENS, NULL) == SMALTI_STATUS_PENDING);
  CHECK(smalti_request_cancel(request) == SMALTI_STATUS_OK);
  CHECK(smalti_request_wait(request, -1) == SMALTI_STATUS_CANCELLED);
  CHECK(smalti_request_close(request) == SMALTI_STATUS_OK);

  options.progress = refuse;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_OK);
  CHECK(smalti_request_wait(request, -1) == SMALTI_STATUS_CANCELLED);
  CHECK(smalti_request_close(request) == SMALTI_STATUS_OK);

  options.progress = NULL;
  options.deadline_ms = 1;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_OK);
  CHECK(smalti_request_wait(request, -1) == SMALTI_STATUS_DEADLINE);
  CHECK(smalti_request_close(request) == SMALTI_STATUS_OK);
}

// The text encoder beside the rest; a prompt that is too long is drawn all the same, and what was cut can be read.
static void tells_what_it_cut(const char *gpt, const char *vq, const char *t5) {
  smalti_engine_options options;
  CHECK(smalti_engine_options_init(&options, sizeof options) == SMALTI_STATUS_OK);
  options.gpt_path = gpt;
  options.vq_path = vq;
  options.t5_path = t5;
  options.device = "cpu";
  options.text_device = "toaster";
  options.image_size = SIDE;
  smalti_engine *engine = NULL;
  CHECK(smalti_engine_create(&options, &engine) == SMALTI_STATUS_INVALID_ARGUMENT);
  options.text_device = "cpu";
  CHECK(smalti_engine_create(&options, &engine) == SMALTI_STATUS_OK);

  char words[4096] = "";
  for (int i = 0; i < 60; i++) strcat(words, "a red square and a blue circle ");
  const char *const prompts[2] = {"a tree", words};
  smalti_request_options asked = request_for(NULL, 2);
  asked.prompts = prompts;
  smalti_request *request = NULL;
  CHECK(smalti_submit(engine, &asked, &request) == SMALTI_STATUS_OK);
  CHECK(smalti_request_wait(request, -1) == SMALTI_STATUS_OK);
  char cut[4096];
  size_t needed = 0;
  CHECK(smalti_request_prompt_cut(request, 0, cut, sizeof cut, &needed) == SMALTI_STATUS_OK);
  CHECK(needed == 1 && cut[0] == 0);
  CHECK(smalti_request_prompt_cut(request, 1, cut, 2, &needed) == SMALTI_STATUS_BUFFER_TOO_SMALL);
  CHECK(smalti_request_prompt_cut(request, 1, cut, sizeof cut, &needed) == SMALTI_STATUS_OK);
  CHECK(needed == strlen(cut) + 1 && needed > 100 && needed < strlen(words));
  // Cleaning takes off the space at the end.
  words[strlen(words) - 1] = 0;
  CHECK(strcmp(words + strlen(words) - strlen(cut), cut) == 0);
  CHECK(smalti_request_prompt_cut(request, 2, cut, sizeof cut, NULL) == SMALTI_STATUS_INVALID_ARGUMENT);
  CHECK(smalti_request_close(request) == SMALTI_STATUS_OK);
  CHECK(smalti_engine_close(engine) == SMALTI_STATUS_OK);
}

// Without checkpoints it is the demo model that draws, by prompt or by class.
static void draws_with_the_demo_model(bool classes) {
  smalti_engine_options options;
  CHECK(smalti_engine_options_init(&options, sizeof options) == SMALTI_STATUS_OK);
  options.device = "cpu";
  options.image_size = SIDE;
  smalti_engine *engine = NULL;
  CHECK(smalti_engine_create(&options, &engine) == SMALTI_STATUS_INVALID_ARGUMENT);
  options.image_size = 0;
  options.demo_classes = 1;
  options.vq_path = "vq.pt";
  CHECK(smalti_engine_create(&options, &engine) == SMALTI_STATUS_INVALID_ARGUMENT);
  options.vq_path = NULL;
  options.demo_classes = classes;
  options.lookahead = 300;
  CHECK(smalti_engine_create(&options, &engine) == SMALTI_STATUS_INVALID_ARGUMENT);
  options.lookahead = 4;
  CHECK(smalti_engine_create(&options, &engine) == SMALTI_STATUS_OK);
  smalti_engine_info info;
  CHECK(smalti_engine_info_init(&info, sizeof info) == SMALTI_STATUS_OK);
  CHECK(smalti_engine_get_info(engine, &info) == SMALTI_STATUS_OK);
  CHECK((info.num_classes > 0) == classes);

  uint32_t class_number = 0;
  const char *prompt = "a red sailboat at night";
  smalti_request_options asked = request_for(NULL, 1);
  if (classes) {
    CHECK(smalti_engine_class(engine, "fish", &class_number) == SMALTI_STATUS_OK);
    asked.classes = &class_number;
  } else {
    asked.prompts = &prompt;
  }
  size_t bytes = (size_t)3 * info.image_size * info.image_size;
  uint8_t *pixels = calloc(bytes, 1);
  asked.output = pixels;
  asked.output_bytes = bytes;
  smalti_request *request = NULL;
  CHECK(smalti_submit(engine, &asked, &request) == SMALTI_STATUS_OK);
  CHECK(smalti_request_wait(request, -1) == SMALTI_STATUS_OK);
  unsigned seen[256] = {0}, shades = 0;
  for (size_t i = 0; i < bytes; i++) shades += seen[pixels[i]]++ == 0;
  CHECK(shades > 64);
  CHECK(smalti_request_close(request) == SMALTI_STATUS_OK);
  CHECK(smalti_engine_close(engine) == SMALTI_STATUS_OK);
  free(pixels);
}

int main(int argc, char **argv) {
  if (argc != 5 && argc != 6) return 2;
  smalti_engine *engine = open_engine(argv[1], argv[2]);
  tells_of_itself(engine);
  draws_the_same_in_company(engine);
  refuses_what_is_wrong(engine);
  knows_older_structs(engine);
  ends_what_is_cancelled(engine);

  // What runs when an engine closes ends; its handle is closed on its own.
  const uint32_t one = 3;
  smalti_request *request = NULL;
  smalti_request_options options = request_for(&one, 1);
  options.count = 200;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_OK);
  CHECK(smalti_engine_close(engine) == SMALTI_STATUS_OK);
  CHECK(smalti_request_wait(request, -1) == SMALTI_STATUS_ENDED);
  CHECK(smalti_request_close(request) == SMALTI_STATUS_OK);
  CHECK(smalti_engine_close(engine) == SMALTI_STATUS_INVALID_HANDLE);
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_INVALID_HANDLE);

  // Drained, it takes no more.
  engine = open_engine(argv[1], argv[2]);
  CHECK(smalti_engine_drain(engine) == SMALTI_STATUS_OK);
  options.count = 1;
  CHECK(smalti_submit(engine, &options, &request) == SMALTI_STATUS_ENDED);
  CHECK(smalti_engine_close(engine) == SMALTI_STATUS_OK);

  tells_what_it_cut(argv[3], argv[2], argv[4]);
  if (argc == 6) {
    draws_with_the_demo_model(true);
    draws_with_the_demo_model(false);
  }
  puts("all is well");
  return 0;
}
