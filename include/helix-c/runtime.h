/*===- helix-c/runtime.h - Decoding with a Helix artifact, from C ----------===*/
#ifndef HELIX_C_RUNTIME_H
#define HELIX_C_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A session holds all ranks of an artifact as threads of this process: open, look at what it needs, load, then admit
 * sequences to slots, append tokens, sample.
 *
 * Errors. Functions return 0, or the number of an error (4009 is HLX4009; docs/errors has a page for each), and then
 * leave the session as it was, except that a failure within a step (HLX4005, HLX4006 and HLX4014) ends it: later steps
 * return HLX4013. Results are written on success only. Threads. Calls on one session must not overlap. Sessions are
 * independent of each other. Ownership. What is passed in is not kept. A session is the caller's until helix_close.
 * Versions. Structures begin with their size, set by the caller (sizeof), so that fields can be added at their ends.
 * Trust. An artifact carries native code: open only what you would run as a program.
 */

#if defined(__GNUC__)
#define HELIX_API __attribute__((visibility("default")))
#else
#define HELIX_API
#endif

typedef int32_t helix_status;
typedef struct helix_session helix_session;

/* The message of the last call in this thread that failed, with its number in front; "" if none has. Valid until the
 * next call of this thread that fails. */
HELIX_API const char *helix_last_error(void);

typedef struct helix_options {
  size_t size;
  const char *weights_root; /* directory of weight files; NULL: the artifact's */
  uint32_t threads; /* that compute, of all ranks together, at least one each; 0: one per core, less one for each
                       further stream of a rank, which has a thread of its own */
  double comm_timeout_seconds; /* after which a rank gives up waiting for another; 0: 60 */
} helix_options;

/* Reads and verifies an artifact and loads its kernels. Allocates nothing large. `options` may be NULL. */
HELIX_API helix_status helix_open(const char *path, const helix_options *options, helix_session **session);

/* Ends the session; NULL is allowed. */
HELIX_API void helix_close(helix_session *session);

typedef struct helix_info {
  size_t size;
  uint32_t ranks;
  uint32_t slots;          /* sequences at a time */
  uint32_t prefill_tokens; /* of a slot in a step of the prefill entry; 0: there is none */
  uint32_t reserved;
  uint64_t capacity;   /* tokens of a slot */
  uint64_t vocabulary; /* token ids are 0 ... vocabulary - 1 */
} helix_info;

HELIX_API helix_status helix_get_info(const helix_session *session, helix_info *info);

typedef struct helix_memory { /* bytes */
  size_t size;
  uint64_t weights;
  uint64_t kv_cache;
  uint64_t activations;
  uint64_t scratch;
} helix_memory;

/* What a rank will hold after helix_load. */
HELIX_API helix_status helix_get_memory(const helix_session *session, uint32_t rank, helix_memory *memory);

/* Called now and then, in the caller's thread, with bytes of weights loaded and their total. */
typedef void (*helix_progress)(uint64_t done, uint64_t total, void *user);

/* Allocates memory, loads weights, starts the ranks' threads. HLX4004, before anything is allocated, if there is not
 * enough memory. `progress` may be NULL. */
HELIX_API helix_status helix_load(helix_session *session, helix_progress progress, void *user);

/* Gives a free slot to a new, empty sequence. `sequence` is any number of the caller's that keys the noise of sampling:
 * the same number, seed and tokens give the same choice in whatever slot and on whatever mesh. HLX4008 if none is free.
 */
HELIX_API helix_status helix_admit(helix_session *session, uint64_t sequence, uint32_t *slot);

/* Forgets the tokens of a slot from `length` on; `length` is at most what it has. */
HELIX_API helix_status helix_truncate(helix_session *session, uint32_t slot, uint64_t length);

/* Frees a slot. */
HELIX_API helix_status helix_release(helix_session *session, uint32_t slot);

/* Tokens of a slot. */
HELIX_API helix_status helix_get_length(const helix_session *session, uint32_t slot, uint64_t *length);

typedef struct helix_feed { /* has no size: it is an element of arrays and will not change */
  uint32_t slot;
  uint32_t reserved;
  const int64_t *ids; /* [count] */
  size_t count;
} helix_feed;

/* Appends tokens to slots, each slot at most once, any number of tokens each: by steps of the prefill entry, or of the
 * decode entry if there is none. HLX4009, before anything is appended, if one does not fit its slot. */
HELIX_API helix_status helix_prefill(helix_session *session, const helix_feed *feeds, size_t count);

/* Appends one token to each of the slots, in one step of the decode entry. */
HELIX_API helix_status helix_decode(helix_session *session, const helix_feed *feeds, size_t count);

/* Copies the logits after the slot's last token to `logits` [count], count = vocabulary. */
HELIX_API helix_status helix_get_logits(const helix_session *session, uint32_t slot, float *logits, size_t count);

typedef struct helix_sampling {
  size_t size;
  double temperature; /* 0: the likeliest token; else at least 1e-6 */
  uint32_t top_k;     /* draw among the k likeliest; 0: all */
  uint32_t reserved;
  double top_p; /* of those, among the likeliest that make up this probability; in (0, 1], 1: all */
  uint64_t seed;
} helix_sampling;

/* Chooses the token that follows the slot's last, and appends nothing. `sampling` may be NULL: the likeliest. HLX4007
 * if the logits are not finite. */
HELIX_API helix_status helix_sample(helix_session *session, uint32_t slot, const helix_sampling *sampling, int64_t *id);

typedef struct helix_traffic { /* bytes that rank 0 sent; every rank sends as much in collectives */
  size_t size;
  uint64_t all_to_all; /* attention */
  uint64_t all_reduce; /* of layers */
  uint64_t embedding;
  uint64_t sampling;
} helix_traffic;

/* What the last step sent, and samples since; then counts from zero. */
HELIX_API helix_status helix_take_traffic(helix_session *session, helix_traffic *traffic);

#ifdef __cplusplus
}
#endif

#endif /* HELIX_C_RUNTIME_H */
