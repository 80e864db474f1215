/*===- generate.c - Decode with a Helix artifact, greedily, from C ---------===*
 *
 * usage: generate MODEL.hlx TOKENS ID...
 *
 * Prints the token ids that follow the prompt of ids. Shows the whole life of a sequence: admit, prefill, sample and
 * decode in turn, release.
 *
 *===----------------------------------------------------------------------===*/
#include <helix-c/runtime.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Whether a line of tokens is begun. */
static int inLine = 0;

/* Every call returns 0 or the number of an error. */
static void check(helix_status status) {
  if (status == 0)
    return;
  if (inLine)
    printf("\n");
  fflush(stdout);
  fprintf(stderr, "%s\n", helix_last_error());
  exit(1);
}

static void usage(void) {
  fprintf(stderr, "usage: generate MODEL.hlx TOKENS ID...\n");
  exit(2);
}

static int64_t number(const char *text) {
  char *end;
  long long value = strtoll(text, &end, 10);
  if (end == text || *end != '\0')
    usage();
  return value;
}

int main(int argc, char **argv) {
  if (argc < 4)
    usage();
  int64_t tokens = number(argv[2]);
  if (tokens < 0)
    usage();
  size_t count = (size_t)argc - 3;
  int64_t *prompt = malloc(count * sizeof(*prompt));
  if (!prompt)
    return 1;
  for (size_t i = 0; i < count; ++i)
    prompt[i] = number(argv[3 + i]);

  helix_session *session;
  check(helix_open(argv[1], NULL, &session));
  helix_info info = {.size = sizeof(info)};
  check(helix_get_info(session, &info));
  for (uint32_t rank = 0; rank < info.ranks; ++rank) {
    helix_memory memory = {.size = sizeof(memory)};
    check(helix_get_memory(session, rank, &memory));
    fprintf(stderr, "rank %" PRIu32 ": %" PRIu64 " bytes of weights, %" PRIu64 " of KV cache\n", rank, memory.weights,
            memory.kv_cache);
  }
  check(helix_load(session, NULL, NULL));

  uint32_t slot;
  check(helix_admit(session, 0, &slot));
  helix_feed feed = {.slot = slot, .ids = prompt, .count = count};
  check(helix_prefill(session, &feed, 1));
  for (int64_t i = 0; i < tokens; ++i) {
    int64_t id;
    check(helix_sample(session, slot, NULL, &id));
    printf(i == 0 ? "%" PRId64 : " %" PRId64, id);
    fflush(stdout);
    inLine = 1;
    if (i + 1 == tokens)
      break;
    feed.ids = &id;
    feed.count = 1;
    check(helix_decode(session, &feed, 1));
  }
  printf("\n");
  inLine = 0;
  check(helix_release(session, slot));
  helix_close(session);
  free(prompt);
  return 0;
}
