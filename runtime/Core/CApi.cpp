//===- CApi.cpp - The C API over a session ---------------------------------===//
#include "helix-c/runtime.h"
#include "runtime/Core/Session.h"

#include <cmath>
#include <cstring>
#include <new>

struct helix_session {
  helix_session(const char *path, const helix::SessionOptions &options) : session(path, options) {}
  helix::Session session;
};

namespace {

using helix::Error;
using helix::ErrorCode;

std::string &lastError() {
  thread_local std::string message;
  return message;
}

/// Runs a call and turns what it throws into a status.
template <typename Body> helix_status guarded(const Body &body) {
  auto fail = [](const Error &error) {
    try {
      lastError() = error.what();
    } catch (...) {
      lastError().clear();
    }
    return helix_status(error.code());
  };
  try {
    body();
    return 0;
  } catch (const Error &error) {
    return fail(error);
  } catch (const std::bad_alloc &) {
    return fail(Error(ErrorCode::MemoryExhausted, "out of memory"));
  } catch (const std::exception &error) {
    return fail(Error(ErrorCode::SystemFailure, error.what()));
  }
}

void require(bool condition, const char *what) {
  if (!condition)
    throw Error(ErrorCode::ArgumentInvalid, what);
}

/// The caller's structure must hold the fields that this version knows.
template <typename Struct> void requireStruct(const Struct *value) {
  require(value && value->size >= sizeof(Struct), "a structure is NULL or its `size` is not set to its sizeof");
}

template <typename Handle> auto &sessionOf(Handle *handle) {
  require(handle, "the session is NULL");
  return handle->session;
}

std::vector<helix::Feed> feedsOf(const helix_feed *feeds, size_t count) {
  require(feeds || count == 0, "the feeds are NULL");
  std::vector<helix::Feed> result;
  for (size_t i = 0; i < count; ++i) {
    require(feeds[i].ids || feeds[i].count == 0, "the ids of a feed are NULL");
    result.push_back({feeds[i].slot, {feeds[i].ids, feeds[i].count}});
  }
  return result;
}

} // namespace

const char *helix_last_error(void) { return lastError().c_str(); }

helix_status helix_open(const char *path, const helix_options *options, helix_session **session) {
  return guarded([&] {
    require(path && session, "the path or the place for the session is NULL");
    helix::SessionOptions to;
    if (options) {
      requireStruct(options);
      to.weightsRoot = options->weights_root ? options->weights_root : "";
      to.threads = options->threads;
      double seconds = options->comm_timeout_seconds;
      require(seconds >= 0 && seconds <= 1e6 && options->threads <= 65536,
              "the timeout must be 0 to 1000000 seconds, and threads at most 65536");
      if (seconds > 0)
        to.commTimeout = std::chrono::milliseconds(int64_t(std::ceil(seconds * 1000)));
    }
    *session = new helix_session(path, to);
  });
}

void helix_close(helix_session *session) { delete session; }

helix_status helix_get_info(const helix_session *session, helix_info *info) {
  return guarded([&] {
    const helix::Session &from = sessionOf(session);
    requireStruct(info);
    const auto *prefill = from.entry(helix::artifact::EntryKind::Prefill);
    info->ranks = from.ranks();
    info->slots = from.slots();
    info->prefill_tokens = prefill ? prefill->tokens() : 0;
    info->capacity = from.capacity();
    info->vocabulary = from.vocabulary();
  });
}

helix_status helix_get_memory(const helix_session *session, uint32_t rank, helix_memory *memory) {
  return guarded([&] {
    const helix::Session &from = sessionOf(session);
    requireStruct(memory);
    require(rank < from.ranks(), "there is no such rank");
    helix::MemoryNeeds needs = from.memory(rank);
    memory->weights = needs.weights;
    memory->kv_cache = needs.kv;
    memory->activations = needs.arenas;
    memory->scratch = needs.scratch;
  });
}

helix_status helix_load(helix_session *session, helix_progress progress, void *user) {
  return guarded([&] {
    std::function<void(uint64_t, uint64_t)> report;
    if (progress)
      report = [&](uint64_t done, uint64_t total) { progress(done, total, user); };
    sessionOf(session).load(report);
  });
}

helix_status helix_admit(helix_session *session, uint64_t sequence, uint32_t *slot) {
  return guarded([&] {
    require(slot, "the place for the slot is NULL");
    *slot = sessionOf(session).admit(sequence);
  });
}

helix_status helix_truncate(helix_session *session, uint32_t slot, uint64_t length) {
  return guarded([&] { sessionOf(session).truncate(slot, length); });
}

helix_status helix_release(helix_session *session, uint32_t slot) {
  return guarded([&] { sessionOf(session).release(slot); });
}

helix_status helix_get_length(const helix_session *session, uint32_t slot, uint64_t *length) {
  return guarded([&] {
    require(length, "the place for the length is NULL");
    *length = sessionOf(session).length(slot);
  });
}

helix_status helix_prefill(helix_session *session, const helix_feed *feeds, size_t count) {
  return guarded([&] { sessionOf(session).prefill(feedsOf(feeds, count)); });
}

helix_status helix_decode(helix_session *session, const helix_feed *feeds, size_t count) {
  return guarded([&] { sessionOf(session).step(helix::artifact::EntryKind::Decode, feedsOf(feeds, count)); });
}

helix_status helix_get_logits(const helix_session *session, uint32_t slot, float *logits, size_t count) {
  return guarded([&] {
    require(logits, "the place for the logits is NULL");
    sessionOf(session).logits(slot, {logits, count});
  });
}

helix_status helix_sample(helix_session *session, uint32_t slot, const helix_sampling *sampling, int64_t *id) {
  return guarded([&] {
    require(id, "the place for the token is NULL");
    helix::Sampling to;
    if (sampling) {
      requireStruct(sampling);
      to = {sampling->temperature, sampling->top_k, sampling->top_p, sampling->seed};
    }
    *id = sessionOf(session).sample(slot, to);
  });
}

helix_status helix_take_traffic(helix_session *session, helix_traffic *traffic) {
  return guarded([&] {
    requireStruct(traffic);
    helix::Traffic from = sessionOf(session).takeTraffic();
    traffic->all_to_all = from.allToAll;
    traffic->all_reduce = from.allReduce;
    traffic->embedding = from.embedding;
    traffic->sampling = from.sampling;
  });
}
