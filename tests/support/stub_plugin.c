/* A library with as much of a PJRT plugin as the macros ask for:
   MINOR: API version. FUNCTIONS: length of the function table.
   FAILS: initialising gives an error. NO_TABLE: GetPjrtApi returns null.
   NO_ENTRY: there is no GetPjrtApi. */
#include <stddef.h>

struct message_args { size_t size; void *extension; void *error; const char *text; size_t length; };
struct code_args { size_t size; void *extension; void *error; int code; };

static const char words[] = "the stub is not in the mood";

static void destroy(void *args) { (void)args; }
static void message(struct message_args *args) {
  args->text = words;
  args->length = sizeof words - 1;
}
static void *get_code(struct code_args *args) {
  args->code = 14;
  return NULL;
}
static void *initialize(void *args) {
  (void)args;
#ifdef FAILS
  return (void *)words;
#else
  return NULL;
#endif
}

struct api {
  size_t size; void *extension;
  size_t version_size; void *version_extension; int major, minor;
  void *functions[FUNCTIONS];
};

static struct api api = {
  sizeof(struct api), NULL, 24, NULL, 0, MINOR,
  { (void *)destroy, (void *)message, (void *)get_code, (void *)initialize },
};

#ifndef NO_ENTRY
const struct api *GetPjrtApi(void) {
#ifdef NO_TABLE
  return NULL;
#else
  return &api;
#endif
}
#endif
